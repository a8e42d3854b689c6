"""Receipts: for each meter the proofs that its records are in a block (SPEC 6, 10.3)."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ledger.protocol import merkle, topics
from ledger.protocol.cose import Envelope
from ledger.protocol.messages import Receipt
from ledger.regional.application import RegionalApplication

_ENTRIES_A_MESSAGE = 4  # some 2 KB in a large region, which a board's buffer still takes
_TREES_KEPT = 8


class Tree:
    """The Merkle tree of a block's records with every node kept, for many paths at once.

    The same tree as ``ledger.protocol.merkle`` (RFC 9162 section 2.1), built level by level: a last
    node without a sibling is carried up unhashed.
    """

    def __init__(self, leaves: Iterable[bytes]) -> None:
        level = [merkle.leaf_hash(leaf) for leaf in leaves]
        self._levels = [level]
        while len(level) > 1:
            pairs = zip(level[::2], level[1::2], strict=False)
            above = [merkle.node_hash(left, right) for left, right in pairs]
            if len(level) % 2:
                above.append(level[-1])
            self._levels.append(above)
            level = above

    def path(self, index: int) -> list[bytes]:
        """Give the inclusion path of a leaf, lowest first; raises IndexError."""
        if not 0 <= index < len(self._levels[0]):
            raise IndexError("no such leaf")
        path = []
        for level in self._levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                path.append(level[sibling])
            index >>= 1
        return path


class Receipts:
    """Makes receipt messages from the chain. Heads must be signed before."""

    def __init__(self, application: RegionalApplication) -> None:
        self._application = application
        self._trees: OrderedDict[int, tuple[Tree, list[bytes]]] = OrderedDict()
        self._bridges: dict[tuple[int, int], list[bytes]] = {}

    def keep(self, height: int, digests: list[bytes]) -> None:
        """Note the record digests of a fresh block, in order, so it need not be read again."""
        self._trees[height] = Tree(digests), digests
        if len(self._trees) > _TREES_KEPT:
            self._trees.popitem(last=False)

    def messages(
        self, height: int, wanted: Mapping[bytes, Sequence[int]]
    ) -> Iterator[tuple[str, bytes]]:
        """Give (topic, message) for records of a block: ``wanted`` maps an address to indices.

        None for a block whose records have been pruned (a gateway that comes back after months
        catches up with blocks that are too old to keep) or whose head is not signed yet.
        """
        raw = self._application.blocks.head_envelope(height)
        if raw is None:  # from before a snapshot, and not signed yet: the meter asks again
            return
        head = Envelope.parse(raw)
        if height not in self._trees:
            if height < self._application.blocks.first_body():
                return
            stored = self._application.blocks.envelopes_of(height)
            self.keep(height, [envelope.digest for envelope in stored])
        tree, digests = self._trees[height]
        for address, indices in wanted.items():
            topic = self._topic(address)
            bridge = self._bridge(address, height)
            for at in range(0, len(indices), _ENTRIES_A_MESSAGE):
                part = indices[at : at + _ENTRIES_A_MESSAGE]
                entries = [(digests[i], i, tree.path(i)) for i in part]
                yield topic, Receipt(head, entries, bridge).encode()

    def _topic(self, address: bytes) -> str:
        member = self._application.state.members.get(address)
        assert member is not None, "records in a block are of members"
        chain = self._application.genesis.chain
        return topics.meter(chain, member.cluster, address, topics.RECEIPT)

    def _bridge(self, address: bytes, height: int) -> tuple[int, list[bytes]] | None:
        """Give what leads from the head that the meter named last to this one, if not ``prev``."""
        member = self._application.state.members.get(address)
        held = member.named_height if member else 0
        if not 0 < held < height - 1:
            return None
        key = (held, height)
        if key not in self._bridges:
            if len(self._bridges) > 1000:
                self._bridges.clear()
            self._bridges[key] = self._application.bridge(held, height)
        return held, self._bridges[key]
