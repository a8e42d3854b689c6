"""The region's state: members, open readings, registry; each entry a leaf of the state trie.

Keys and values are written down in SPEC 11.6. Objects are copied on the first write of a block, so
``rollback`` gives the state before the block back without decoding anything.
"""

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ledger.genesis import RegionGenesis
from ledger.network import NETWORK_KEY
from ledger.protocol import cbor, cose
from ledger.trie import Proof, Trie

_MEMBER = b"m"
_OPEN = b"o"
_APPROVAL = b"a"
GATEWAY_PREFIX = b"g"
REGISTRY_KEY = b"r"
MAX_GAPS = 8
_END_OF_BOOT = 0xFFFFFFFF

MOST_KEY_BYTES = 33
_MOST_MEMBER_BYTES = 1024  # eight gaps, a register and the rest come to less than half of it
_MOST_LEAF_BYTES = 1 << 19

Slot = tuple[int, int]
Register = tuple[int, int | None, int | None]


@dataclass(slots=True)
class Member:
    """One meter as the chain knows it.

    It is a member in rounds [``active_from``, ``active_until``) and votes from ``votes_from`` on.
    (``boot``, ``seq``) is the highest reading slot in the chain; ``gaps`` are runs (boot, first,
    last) below it that never came, the newest ``MAX_GAPS`` of them. ``register`` is (time, import
    mWh, export mWh) of the newest accepted reading that had one; a register that was never told is
    None. ``named_height`` is the newest head that its ballots named.
    """

    public_key: bytes
    cluster: str
    active_from: int
    votes_from: int
    active_until: int | None = None
    suspended: bool = False
    boot: int = 0
    seq: int = 0
    gaps: tuple[tuple[int, int, int], ...] = ()
    ballot_round: int | None = None
    named_height: int = 0
    register: Register | None = None

    def encode(self) -> bytes:
        """Give the leaf's value (SPEC 11.6)."""
        who: list[Any] = [self.public_key, self.cluster, self.active_from, self.votes_from]
        who += [self.active_until, self.suspended, self.boot, self.seq]
        register = None if self.register is None else list(self.register)
        gaps = [list(gap) for gap in self.gaps]
        return cbor.dumps([*who, gaps, self.ballot_round, self.named_height, register])

    @classmethod
    def decode(cls, value: bytes) -> "Member":
        """Take a leaf of our own store apart."""
        f = cbor.loads(value)
        gaps = tuple((gap[0], gap[1], gap[2]) for gap in f[8])
        register = None if f[11] is None else (f[11][0], f[11][1], f[11][2])
        return cls(f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], gaps, f[9], f[10], register)

    def active_at(self, round_: int) -> bool:
        """Tell whether this is a member in a round."""
        ended = self.active_until is not None and round_ >= self.active_until
        return self.active_from <= round_ and not ended

    def votes_at(self, round_: int) -> bool:
        """Tell whether this member may sit in committees of a round."""
        return self.active_at(round_) and self.votes_from <= round_

    def may_fill(self, slot: Slot) -> bool:
        """Tell whether a reading slot is still free."""
        if slot > (self.boot, self.seq):
            return True
        return any(boot == slot[0] and first <= slot[1] <= last for boot, first, last in self.gaps)

    def fill(self, slot: Slot) -> None:
        """Note a reading slot as used; it must be free."""
        boot, seq = slot
        if slot > (self.boot, self.seq):
            self._raise_to(boot, seq)
            return
        gaps = []
        for gap in self.gaps:
            if gap[0] != boot or not gap[1] <= seq <= gap[2]:
                gaps.append(gap)
                continue
            if gap[1] < seq:
                gaps.append((boot, gap[1], seq - 1))
            if seq < gap[2]:
                gaps.append((boot, seq + 1, gap[2]))
        self.gaps = tuple(gaps[-MAX_GAPS:])

    def _raise_to(self, boot: int, seq: int) -> None:
        gaps = list(self.gaps)
        first = 1
        if boot == self.boot:
            first = self.seq + 1
        else:
            # the rest of the former boot, and boots of which nothing came yet, may still lie in
            # the meter's journal
            if self.boot and self.seq < _END_OF_BOOT:
                gaps.append((self.boot, self.seq + 1, _END_OF_BOOT))
            passed = range(max(self.boot + 1, boot - MAX_GAPS), boot)
            gaps += [(number, 1, _END_OF_BOOT) for number in passed]
        if first < seq:
            gaps.append((boot, first, seq - 1))
        self.gaps = tuple(gaps[-MAX_GAPS:])
        self.boot, self.seq = boot, seq


@dataclass(slots=True)
class OpenReading:
    """A reading in the chain that no majority has settled yet: who has voted what.

    ``opened`` is the round of the block that holds it. ``values`` needed on acceptance are taken
    from the record itself.
    """

    meter: bytes
    round: int
    opened: int
    record_id: int
    votes: dict[bytes, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Give the leaf's value (SPEC 11.6)."""
        votes = [[voter, self.votes[voter]] for voter in sorted(self.votes)]
        return cbor.dumps([self.meter, self.round, self.opened, self.record_id, votes])

    @classmethod
    def decode(cls, value: bytes) -> "OpenReading":
        """Take a leaf of our own store apart."""
        f = cbor.loads(value)
        return cls(f[0], f[1], f[2], f[3], dict(f[4]))


@dataclass(slots=True)
class Approval:
    """A registry change on its way: its payload, who approved it, and the height that made it m."""

    payload: bytes
    operators: tuple[bytes, ...] = ()
    approved_height: int | None = None

    def encode(self) -> bytes:
        """Give the leaf's value (SPEC 11.6)."""
        return cbor.dumps([self.payload, list(self.operators), self.approved_height])

    @classmethod
    def decode(cls, value: bytes) -> "Approval":
        """Take a leaf of our own store apart."""
        f = cbor.loads(value)
        return cls(f[0], tuple(f[1]), f[2])


@dataclass(frozen=True, slots=True)
class Convicted:
    """A gateway that signed another head than the chain's.

    ``height`` is the block that holds the evidence, ``head`` the payload digest of the other head.
    The last gateway is never ``suspended``, for nothing could close a round any more.
    """

    height: int
    head: bytes
    suspended: bool

    def encode(self) -> bytes:
        """Give the leaf's value (SPEC 11.6)."""
        return cbor.dumps([self.height, self.head, self.suspended])

    @classmethod
    def decode(cls, value: bytes) -> "Convicted":
        """Take a leaf of our own store apart."""
        return cls(*cbor.loads(value))


_Entry = TypeVar("_Entry", Member, OpenReading, Approval, Convicted)


class Table(Generic[_Entry]):
    """The entries of one kind, under one prefix of the trie; writes of a block can be undone."""

    def __init__(self, prefix: bytes, decode: Callable[[bytes], _Entry]) -> None:
        self._prefix = prefix
        self._decode: Callable[[bytes], _Entry] = decode
        self._entries: dict[bytes, _Entry] = {}
        self._before: dict[bytes, _Entry | None] = {}
        self._unflushed: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._entries)

    def items(self) -> Iterable[tuple[bytes, _Entry]]:
        """Give (name, entry) of all entries; the entries are not to be changed."""
        return self._entries.items()

    def get(self, name: bytes) -> _Entry | None:
        """Give an entry to read, or None."""
        return self._entries.get(name)

    def edit(self, name: bytes) -> _Entry:
        """Give an entry to change before the next ``take_changes``; raises KeyError."""
        entry = self._entries[name]
        self._unflushed.add(name)
        if name not in self._before:
            self._before[name] = entry
            entry = self._entries[name] = copy(entry)
            if isinstance(entry, OpenReading):
                entry.votes = dict(entry.votes)
        return entry

    def put(self, name: bytes, entry: _Entry) -> None:
        """Add or replace an entry."""
        self._before.setdefault(name, self._entries.get(name))
        self._unflushed.add(name)
        self._entries[name] = entry

    def drop(self, name: bytes) -> None:
        """Take an entry out; raises KeyError."""
        self._before.setdefault(name, self._entries[name])
        self._unflushed.add(name)
        del self._entries[name]

    def take_changes(self) -> list[tuple[bytes, bytes | None]]:
        """Give (trie key, value or None) of what was written since it was last asked."""
        found: list[tuple[bytes, bytes | None]] = []
        for name in self._unflushed:
            entry = self._entries.get(name)
            found.append((self._prefix + name, None if entry is None else entry.encode()))
        self._unflushed.clear()
        return found

    def settle(self) -> None:
        """Keep the writes."""
        self._before.clear()

    def rollback(self) -> None:
        """Undo the writes since ``settle``."""
        for name, before in self._before.items():
            if before is None:
                self._entries.pop(name, None)
            else:
                self._entries[name] = before
        self._before.clear()
        self._unflushed.clear()

    def load(self, key: bytes, value: bytes) -> bool:
        """Take an entry of the store in, if its key is of this table."""
        if not key.startswith(self._prefix):
            return False
        self._entries[key[len(self._prefix) :]] = self._decode(value)
        return True


@dataclass(frozen=True, slots=True)
class Registry:
    """Counters of the region: registry changes in force or approved, and the witnessed height."""

    changes: int = 0
    witnessed: int = 0


class State:
    """All entries with the trie over them.

    A block writes to ``members``, ``open``, ``approvals`` and ``convicted`` (tables by address,
    digest, payload digest, gateway's address), to ``registry`` and to ``network`` (the leaf of
    ``ledger.network``, None until it first changes); ``flush`` brings its writes into the trie and
    gives them for the store; ``settle`` keeps them or ``rollback`` undoes them.
    """

    def __init__(self) -> None:
        self.members = Table(_MEMBER, Member.decode)
        self.open = Table(_OPEN, OpenReading.decode)
        self.approvals = Table(_APPROVAL, Approval.decode)
        self.convicted = Table(GATEWAY_PREFIX, Convicted.decode)
        self.registry = Registry()
        self.network: bytes | None = None
        self.clusters: dict[str, list[bytes]] = {}
        self._trie = Trie()
        self._settled = self._trie.snapshot()
        self._settled_registry = self._flushed_registry = self.registry
        self._settled_network: bytes | None = None
        self._flushed_network: bytes | None = None

    @staticmethod
    def genesis_rows(genesis: RegionGenesis) -> list[tuple[bytes, bytes | None]]:
        """Give the state before the first round: the genesis' members, voting at once."""
        state = State()
        for key, cluster in genesis.members:
            state.members.put(cose.address_of(key), Member(key, cluster, 0, 0))
        return state.flush()

    @classmethod
    def load(cls, rows: Iterable[tuple[bytes, bytes]]) -> "State":
        """Give the state that a store kept."""
        state = cls()
        for key, value in rows:
            state._trie.set(key, value)
            if key == REGISTRY_KEY:
                state.registry = state._flushed_registry = Registry(*cbor.loads(value))
            elif key == NETWORK_KEY:
                state.network = state._flushed_network = value
            elif not any(table.load(key, value) for table in state._tables):
                raise ValueError(f"the store holds an unknown state key {key.hex()}")
        state.settle()
        return state

    @staticmethod
    def registry_of(value: bytes | None) -> Registry:
        """Take the registry's leaf apart; None where nothing has changed yet."""
        return Registry() if value is None else Registry(*cbor.loads(value))

    @property
    def _tables(
        self,
    ) -> "tuple[Table[Member], Table[OpenReading], Table[Approval], Table[Convicted]]":
        return self.members, self.open, self.approvals, self.convicted

    def flush(self) -> list[tuple[bytes, bytes | None]]:
        """Bring the writes since the last flush into the trie.

        Gives (key, value or None) of them, in the order of keys.
        """
        changes: list[tuple[bytes, bytes | None]] = []
        for table in self._tables:
            changes += table.take_changes()
        changes.sort()
        if self.registry != self._flushed_registry:
            self._flushed_registry = self.registry
            row = cbor.dumps([self.registry.changes, self.registry.witnessed])
            changes.append((REGISTRY_KEY, row))
        if self.network is not None and self.network != self._flushed_network:
            self._flushed_network = self.network
            changes.append((NETWORK_KEY, self.network))
        for key, value in changes:
            if value is None:
                # an entry that came and went within the block may never have been in the trie
                if self._trie.get(key) is not None:
                    self._trie.delete(key)
            else:
                self._trie.set(key, value)
        return changes

    def root(self) -> bytes:
        """Give the 32-byte state root, as of the last ``flush``."""
        return self._trie.root()

    def value(self, key: bytes) -> bytes | None:
        """Give a leaf's value as of the last ``flush``, or None."""
        return self._trie.get(key)

    def prove(self, key: bytes) -> Proof:
        """Give the proof of a key's value or absence under ``root``."""
        return self._trie.prove(key)

    def settle(self) -> None:
        """Keep the writes."""
        for table in self._tables:
            table.settle()
        self._settled = self._trie.snapshot()
        self._settled_registry = self._flushed_registry = self.registry
        self._settled_network = self._flushed_network = self.network
        self.index()

    def rollback(self) -> None:
        """Undo the writes since ``settle``."""
        for table in self._tables:
            table.rollback()
        self._trie.rollback(self._settled)
        self.registry = self._flushed_registry = self._settled_registry
        self.network = self._flushed_network = self._settled_network
        self.index()

    def index(self) -> None:
        """Note who is in which cluster; members are never dropped, so their number tells."""
        if sum(map(len, self.clusters.values())) == len(self.members):
            return
        self.clusters = {}
        for address, member in self.members.items():
            self.clusters.setdefault(member.cluster, []).append(address)
        for addresses in self.clusters.values():
            addresses.sort()

    def active(self, round_: int) -> Iterator[tuple[bytes, Member]]:
        """Give (address, member) of the members in a round."""
        return ((a, member) for a, member in self.members.items() if member.active_at(round_))

    def suspended(self, gateway: bytes) -> bool:
        """Tell whether a gateway's orders count no more."""
        convicted = self.convicted.get(gateway)
        return convicted is not None and convicted.suspended

    def member_key(self, address: bytes) -> bytes:
        """Give the trie key of a member."""
        return member_key(address)


def member_key(address: bytes) -> bytes:
    """Give the trie key of a member."""
    return _MEMBER + address


def most_bytes(key: bytes) -> int:
    """Give how long a leaf's value can become, roughly.

    A vote on an open reading takes 20 bytes, and a whole cluster may vote on it; what operators
    approve of the network adds up.
    """
    small = key[:1] in (_MEMBER, GATEWAY_PREFIX, REGISTRY_KEY)
    return _MOST_MEMBER_BYTES if small else _MOST_LEAF_BYTES
