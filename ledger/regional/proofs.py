"""Checking a region's answers against an application hash that one trusts (SPEC 11.9).

The hash comes from a light client of the consensus engine; never from whoever brings the proof.
Every proof begins ``[rest, payload of the newest head]``: the application hash is SHA-256 over the
newest head's digest and ``rest``, 32 bytes for what waits, in a region with validators followed by
32 bytes for its windows.
"""

from hashlib import sha256
from typing import Any

from ledger import trie
from ledger.protocol import merkle, records
from ledger.protocol.cose import ADDRESS_BYTES, payload_digest
from ledger.protocol.errors import BadProof, MalformedRecord
from ledger.regional.state import Member, member_key

__all__ = ["ADDRESS_BYTES", "HEIGHT_BYTES", "verify_head", "verify_member", "verify_newest"]

HEIGHT_BYTES = 8
_REST_BYTES = (32, 64)


def verify_newest(app_hash: bytes, rest: Any, payload: Any) -> records.Head:
    """Check the newest head under an application hash; gives it. Raises BadProof."""
    if type(rest) is not bytes or len(rest) not in _REST_BYTES or type(payload) is not bytes:
        raise BadProof("no proof of a region's newest head")
    if sha256(payload_digest(payload) + rest).digest() != app_hash:
        raise BadProof("the newest head does not lead to the application hash")
    return _head(payload)


def verify_head(app_hash: bytes, height: int, payload: bytes | None, proof: Any) -> records.Head:
    """Check an answer to ``head``; gives the head of that height. Raises BadProof.

    That there is no such head cannot be proved.
    """
    rest, newest_payload, path = _three(proof)
    newest = verify_newest(app_hash, rest, newest_payload)
    if type(payload) is not bytes:
        raise BadProof("no head")
    head = _head(payload)
    if head.height != height:
        raise BadProof("the head is of another height")
    if height == newest.height:
        if payload != newest_payload or path != []:
            raise BadProof("not the newest head")
        return head
    digest = payload_digest(payload)
    merkle.verify_inclusion(newest.history_root, digest, height - 1, newest.height - 1, path)
    return head


def verify_member(
    app_hash: bytes, address: bytes, value: bytes | None, proof: Any
) -> Member | None:
    """Check an answer to ``member``; gives the member after the newest head, None for a stranger.

    Raises BadProof.
    """
    rest, newest_payload, in_state = _three(proof)
    newest = verify_newest(app_hash, rest, newest_payload)
    if type(address) is not bytes or len(address) != ADDRESS_BYTES:
        raise BadProof("no address")
    trie.verify(newest.state_root, member_key(address), value, trie.Proof.decode(in_state))
    # proved, so it is what the application wrote
    return None if value is None else Member.decode(value)


def _three(proof: Any) -> list[Any]:
    if type(proof) is not list or len(proof) != 3:
        raise BadProof("a proof is a list of three")
    return proof


def _head(payload: bytes) -> records.Head:
    try:
        head = records.decode(payload)
    except MalformedRecord as e:
        raise BadProof(f"no head: {e}") from None
    if not isinstance(head, records.Head):
        raise BadProof("another record than a head")
    return head
