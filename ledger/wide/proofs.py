"""Checking the wide-area chain's answers against an application hash that one trusts (SPEC 13.5).

The hash comes from a light client of the consensus engine, or from a copy of the chain that one
has audited; never from whoever brings the proof.
"""

from hashlib import sha256
from typing import Any

from ledger import trie
from ledger.network import NETWORK_KEY
from ledger.protocol import cbor, merkle, records
from ledger.protocol.cose import Envelope, payload_digest
from ledger.protocol.errors import BadProof, MalformedRecord
from ledger.wide import codes
from ledger.wide.entries import Entry
from ledger.wide.state import LOG_KEY, gateways_key, offers_key, region_key


def verify_region(app_hash: bytes, region: bytes, value: bytes | None, proof: list[Any]) -> None:
    """Check a region's leaf, or that it has none; raises BadProof."""
    trie.verify(app_hash, region_key(region), value, trie.Proof.decode(proof))


def verify_network(app_hash: bytes, value: bytes | None, proof: list[Any]) -> None:
    """Check the leaf of the network registry, or that it is the genesis'; raises BadProof."""
    trie.verify(app_hash, NETWORK_KEY, value, trie.Proof.decode(proof))


def verify_gateways(app_hash: bytes, region: bytes, value: bytes | None, proof: list[Any]) -> None:
    """Check the gateways that operators gave a region, or that they gave none; raises BadProof."""
    trie.verify(app_hash, gateways_key(region), value, trie.Proof.decode(proof))


def verify_offers(app_hash: bytes, region: bytes, value: bytes | None, proof: list[Any]) -> None:
    """Check what a region's gateways offer, or that there never was any; raises BadProof.

    An offer is no summary in effect.
    """
    trie.verify(app_hash, offers_key(region), value, trie.Proof.decode(proof))


def verify_kept(app_hash: bytes, value: bytes | None, proof: list[Any]) -> Entry:
    """Check that something is kept in the chain; gives its entry, raises BadProof.

    ``value`` None is something whose body was pruned: the entry is proved all the same. Read the
    entry's code: what contradicts a summary in effect, or was offered only, is kept as well.
    """
    if type(proof) is not list or len(proof) != 5:
        raise BadProof("the proof of something kept is a list of five")
    leaf, leaf_proof, index, path, data = proof
    trie.verify(app_hash, LOG_KEY, leaf, trie.Proof.decode(leaf_proof))
    if leaf is None:
        raise BadProof("the log is empty")
    if type(data) is not bytes:
        raise BadProof("an entry is bytes")
    try:
        # proved, yet by whom the caller judges only afterwards, maybe
        size, root = records.array(cbor.loads(leaf), 2, 2, "log")
        merkle.verify_inclusion(root, data, index, size, path)
        entry = Entry.decode(data)
        if value is not None and _digest(value, entry.code) != entry.digest:
            raise BadProof("the entry is of something else")
    except MalformedRecord as e:
        raise BadProof(f"not what is kept: {e}") from None
    return entry


def verify_summary(
    app_hash: bytes, region: bytes, to_height: int, value: bytes | None, proof: list[Any]
) -> Entry:
    """Check a region's summary in effect up to a height; gives its entry, raises BadProof.

    The application has checked the signature; ``value`` may still come with another one, for the
    entry is over the payload.
    """
    entry = verify_kept(app_hash, value, proof)
    if (entry.subject, entry.place, entry.code) != (region, to_height, codes.OK):
        raise BadProof("what is proved is not this summary in effect")
    return entry


def _digest(value: bytes, code: int) -> bytes:
    if code == codes.MISBEHAVIOUR:
        return sha256(value).digest()
    return payload_digest(Envelope.parse(value).payload)
