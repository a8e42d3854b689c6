"""Answering from a region's state with proofs, which ``ledger.regional.proofs`` checks (SPEC 11.9).

head    key: a height in 8 bytes, big-endian; value: the head's payload, None where there is
        none (yet)
member  key: an address; value: the member's leaf (SPEC 11.6), None for a stranger
"""

from typing import TYPE_CHECKING

from ledger.engine.abci import Refused
from ledger.regional import codes
from ledger.regional.proofs import ADDRESS_BYTES, HEIGHT_BYTES

if TYPE_CHECKING:
    from ledger.regional.application import RegionalApplication

Found = tuple[bytes | None, list[object]]


def answer(application: "RegionalApplication", rest: bytes, path: str, key: bytes) -> Found:
    """Give value and proof; ``rest`` is what the application hash covers beside the newest head.

    Raises Refused for another path or key, and for ``member`` before the first block.
    """
    if path == "head" and len(key) == HEIGHT_BYTES:
        return _head(application, rest, int.from_bytes(key, "big"))
    newest = application.blocks.head_payload(application.height)
    if path == "member" and len(key) == ADDRESS_BYTES and newest is not None:
        leaf = application.state.member_key(key)
        proof = application.state.prove(leaf).encode()
        return application.state.value(leaf), [rest, newest, proof]
    raise Refused(codes.UNKNOWN_QUERY, "the query's path or the length of its key is unknown")


def _head(application: "RegionalApplication", rest: bytes, height: int) -> Found:
    newest = application.height
    if not 1 <= height <= newest:
        return None, []
    path = application.log.inclusion(height - 1, newest - 1) if height < newest else []
    payload = application.blocks.head_payload
    return payload(height), [rest, payload(newest), path]
