"""Dropping the bodies of old blocks (SPEC 11.10).

Heads, history, state, windows and the records of operators and gateways stay, each of the latter
with its path to its block's records root, and results that settle a reading whose body goes get its
digest. So what is left can still be proved and checked, and every rule goes on as on a full node:
records that old are beyond evidence.
"""

from ledger.protocol import cbor, merkle
from ledger.regional import kinds
from ledger.regional.blocks import Blocks
from ledger.regional.compact import MOST_BACK, record_id

_LEAST_STEP = MOST_BACK
"""Blocks that must be there to drop: packing the next ones anew is work."""


def prune(blocks: Blocks, before_height: int) -> int:
    """Drop bodies below a height, inside the caller's transaction; gives the first one left.

    Few blocks are left for the next time.
    """
    first = blocks.first_body()
    if before_height - first < _LEAST_STEP:
        return first
    blocks.name_results(before_height)
    for height in range(first, before_height):
        _keep_paths(blocks, height)
    # ballots that refer to readings which go: these name their digests from now on
    after = range(before_height, min(before_height + MOST_BACK, blocks.height() + 1))
    whole = {height: blocks.envelopes_of(height) for height in after}
    blocks.drop_bodies(before_height)
    for height, envelopes in whole.items():
        blocks.pack_again(height, [(e, kinds.decode(e.payload)) for e in envelopes])
    return before_height


def _keep_paths(blocks: Blocks, height: int) -> None:
    kept = blocks.kept_records(height, height + 1)
    if not kept:
        return
    digests = [envelope.digest for envelope in blocks.envelopes_of(height)]
    for id_, _ in kept:
        index = id_ - record_id(height, 0)
        blocks.put_path(id_, cbor.dumps(list(merkle.inclusion_path(digests, index))))


def path_of(blocks: Blocks, height: int, id_: int) -> list[bytes]:
    """Give the path of a kept record to its block's records root."""
    path = blocks.path(id_)
    if path is not None:
        found: list[bytes] = cbor.loads(path)
        return found
    digests = [envelope.digest for envelope in blocks.envelopes_of(height)]
    return merkle.inclusion_path(digests, id_ - record_id(height, 0))
