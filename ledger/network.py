"""The network registry of both chains: validators, versions, regions, by m of n (SPEC 16).

An operator's approval is a transaction, record type 10. What ``threshold`` operators approve takes
effect at once. The registry is one leaf of the chain's state trie, absent until it first changes,
and follows from the sequence of transactions and of the engine's evidence alone.

An application keeps the ``NetworkState`` of its committed leaf and, in a block,

    calls ``punish`` for each misbehaviour, before the transactions
    calls ``check`` for an approval, checks the signature with the key that this gives, and
      calls ``approve``, which tells the change that took effect, if one did
    writes ``state.encode()`` under ``NETWORK_KEY`` where the state is another one
    tells the engine ``validator_updates(before, after)`` once a block: an engine takes each
      validator at most once, whatever happened to it within the block
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ledger.engine.abci import Misbehaviour, Refused, Validator
from ledger.genesis import (
    MAX_VALIDATORS,
    GenesisValidator,
    RegionGenesis,
    WideGenesis,
    addresses,
    validator_name,
)
from ledger.protocol import cbor, p256, records
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import InvalidKey, MalformedRecord
from ledger.regional import codes  # those below 20 are of both chains

NETWORK_KEY = b"n"
FIRST_VERSION = 1
MAX_ENGINE_HEIGHT = (1 << 63) - 1
# Approvals are kept for ever: below the threshold an operator must not fill the chain with them.
MAX_TAKEN_BACK = 8

# actions
VALIDATOR = 1
REMOVE = 2
VERSION = 3
REGION = 4

_MAX_NUMBER = 0xFFFFFFFF
_MAX_GATEWAYS = 16
_KEY_BYTES = 33


class Remove(NamedTuple):
    """Takes a validator out, by its name."""

    name: str


class Upgrade(NamedTuple):
    """Puts the rules of ``version`` in force from an engine height on."""

    version: int
    height: int


class RegionGateways(NamedTuple):
    """Names a region's gateways on the wide-area chain: of a new region, or new ones."""

    chain: bytes
    gateways: tuple[bytes, ...]


What = GenesisValidator | Remove | Upgrade | RegionGateways


@dataclass(frozen=True, slots=True)
class NetworkChange:
    """Type 10: an operator's approval of one change of the network.

    ``number`` counts the changes of the chain from 1. ``what`` is a validator that joins, has
    another key or power, or comes back after it was removed for misbehaviour; or one of the others.
    """

    chain: bytes
    number: int
    what: What

    def payload(self) -> bytes:
        """Give the CBOR payload."""
        what = self.what
        if isinstance(what, RegionGateways):
            arguments: list[Any] = [what.chain, list(what.gateways)]
        else:
            arguments = list(what)
        fields = [self.number, _ACTIONS[type(what)], arguments]
        return records.encode(records.NETWORK_CHANGE, self.chain, fields)

    @classmethod
    def decode(cls, payload: bytes) -> "NetworkChange":
        """Take a payload apart; raises MalformedRecord or InvalidKey."""
        kind, chain, fields = records.split(payload)
        if kind != records.NETWORK_CHANGE:
            raise MalformedRecord(f"record type {kind} is not a network change")
        records.array(fields, 3, 3, "network change")
        number = records.integer(fields[0], 1, _MAX_NUMBER, "number")
        action = records.integer(fields[1], VALIDATOR, REGION, "action")
        return cls(chain, number, _DECODERS[action](fields[2]))


def _decode_remove(item: Any) -> Remove:
    return Remove(validator_name(records.array(item, 1, 1, "arguments")[0]))


def _decode_upgrade(item: Any) -> Upgrade:
    fields = records.array(item, 2, 2, "arguments")
    return Upgrade(
        records.integer(fields[0], FIRST_VERSION + 1, 0xFFFFFFFF, "version"),
        records.integer(fields[1], 1, MAX_ENGINE_HEIGHT, "height"),
    )


def _decode_region(item: Any) -> RegionGateways:
    fields = records.array(item, 2, 2, "arguments")
    keys = records.array(fields[1], 1, _MAX_GATEWAYS, "gateways")
    gateways = tuple(records.octets(key, _KEY_BYTES, "gateway key") for key in keys)
    for key in gateways:
        p256.PublicKey(key)
    if len(set(gateways)) != len(gateways):
        raise MalformedRecord("gateways holds one key twice")
    return RegionGateways(records.octets(fields[0], records.CHAIN_BYTES, "region id"), gateways)


_ACTIONS: dict[type, int] = {
    GenesisValidator: VALIDATOR,
    Remove: REMOVE,
    Upgrade: VERSION,
    RegionGateways: REGION,
}
_DECODERS: dict[int, Callable[[Any], What]] = {
    VALIDATOR: GenesisValidator.decode,
    REMOVE: _decode_remove,
    VERSION: _decode_upgrade,
    REGION: _decode_region,
}


class Seat(NamedTuple):
    """A validator as the chain knows it; one that was removed for misbehaviour has no vote."""

    name: str
    public_key: bytes
    power: int
    removed: bool = False


class Approval(NamedTuple):
    """A change on its way: its payload, and the addresses of who approved it, rising."""

    payload: bytes
    operators: tuple[bytes, ...]


class TakenBack(NamedTuple):
    """How often an operator, by address, has put another approval in its open one's place."""

    operator: bytes
    times: int


@dataclass(frozen=True, slots=True)
class NetworkState:
    """The registry: changes in force so far, planned versions, validators, open approvals.

    ``upgrades`` rise in version and height. ``seats`` are in the order of names, ``approvals`` in
    the order of payloads, ``taken_back`` in the order of addresses. The last two are of the number
    after ``changes``.
    """

    changes: int = 0
    upgrades: tuple[Upgrade, ...] = ()
    seats: tuple[Seat, ...] = ()
    approvals: tuple[Approval, ...] = ()
    taken_back: tuple[TakenBack, ...] = ()

    def encode(self) -> bytes:
        """Give the leaf's value (SPEC 16.4)."""
        approvals = [[approval.payload, list(approval.operators)] for approval in self.approvals]
        upgrades = [list(upgrade) for upgrade in self.upgrades]
        seats = [list(seat) for seat in self.seats]
        taken_back = [list(taken) for taken in self.taken_back]
        return cbor.dumps([self.changes, upgrades, seats, approvals, taken_back])

    @classmethod
    def decode(cls, value: bytes) -> "NetworkState":
        """Take a leaf of our own store, or a proved one, apart."""
        changes, upgrades, seats, approvals, taken_back = cbor.loads(value)
        return cls(
            changes,
            tuple(Upgrade(*upgrade) for upgrade in upgrades),
            tuple(Seat(*seat) for seat in seats),
            tuple(Approval(payload, tuple(signers)) for payload, signers in approvals),
            tuple(TakenBack(*taken) for taken in taken_back),
        )

    def version_at(self, height: int) -> int:
        """Give the version of the rules of an engine's block."""
        past = [upgrade.version for upgrade in self.upgrades if upgrade.height <= height]
        return past[-1] if past else FIRST_VERSION

    @property
    def validators(self) -> tuple[Validator, ...]:
        """Give who votes, by name."""
        return tuple(Validator(s.public_key, s.power) for s in self.seats if not s.removed)

    def seat(self, name: str) -> Seat | None:
        """Give a validator by name, or None."""
        return next((seat for seat in self.seats if seat.name == name), None)

    def has_open(self, operator: bytes) -> bool:
        """Tell whether an operator has an approval open, by its address."""
        return any(operator in approval.operators for approval in self.approvals)

    def times_taken_back(self, operator: bytes) -> int:
        """Tell how often an operator has taken back an approval of the next number."""
        return next((taken.times for taken in self.taken_back if taken.operator == operator), 0)


def validator_updates(before: NetworkState, after: NetworkState) -> tuple[Validator, ...]:
    """Give each validator whose power is another one, once, by key; power 0 takes it out."""
    old = {validator.public_key: validator.power for validator in before.validators}
    new = {validator.public_key: validator.power for validator in after.validators}
    found = [Validator(key, power) for key, power in new.items() if old.get(key) != power]
    found += [Validator(key, 0) for key in old if key not in new]
    return tuple(sorted(found, key=lambda validator: validator.public_key))


class NetworkRules:
    """What changes the registry of one chain; pure.

    ``regions`` says whether changes of regions' gateways are of this chain (the wide-area chain).
    """

    def __init__(
        self,
        chain: bytes,
        operators: tuple[bytes, ...],
        threshold: int,
        genesis_validators: Sequence[GenesisValidator],
        *,
        regions: bool = False,
    ) -> None:
        self._chain = chain
        self._operators = addresses(operators)
        self._threshold = threshold
        self._regions = regions
        self._first = NetworkState(
            seats=tuple(Seat(*validator) for validator in sorted(genesis_validators))
        )

    @classmethod
    def of(cls, genesis: RegionGenesis | WideGenesis) -> "NetworkRules":
        """Give the rules of a chain by its genesis."""
        return cls(
            genesis.chain,
            genesis.operators,
            genesis.threshold,
            genesis.validators,
            regions=isinstance(genesis, WideGenesis),
        )

    def load(self, value: bytes | None) -> NetworkState:
        """Give the state of a leaf's value; None is the genesis'."""
        return self._first if value is None else NetworkState.decode(value)

    def check(self, state: NetworkState, envelope: Envelope, change: NetworkChange) -> bytes:
        """Check every rule but the signature; gives the signer's key, raises Refused."""
        if change.chain != self._chain:
            raise Refused(codes.WRONG_CHAIN, "the network change belongs to another chain")
        key = self._operators.get(envelope.kid)
        if key is None:
            raise Refused(codes.UNKNOWN_SIGNER, "the signer is not an operator of this chain")
        if change.number != state.changes + 1:
            log = f"the next network change has number {state.changes + 1}"
            raise Refused(codes.WRONG_NUMBER, log)
        for approval in state.approvals:
            if approval.payload == envelope.payload and envelope.kid in approval.operators:
                raise Refused(codes.DUPLICATE, "this operator has approved this change")
        if state.has_open(envelope.kid) and state.times_taken_back(envelope.kid) >= MAX_TAKEN_BACK:
            log = f"this operator has taken back {MAX_TAKEN_BACK} approvals of this number"
            raise _impossible(log)
        self._check_possible(state, change.what)
        return key

    def approve(
        self, state: NetworkState, envelope: Envelope, change: NetworkChange
    ) -> tuple[NetworkState, NetworkChange | None]:
        """Count a checked approval; gives the state after it and the change in force by it.

        An operator has one open approval: a new one takes the former back, which is counted. When
        a change takes effect the others end, and the counts, for they all have its number.
        """
        open_ = {approval.payload: approval.operators for approval in state.approvals}
        for payload, operators in open_.items():
            open_[payload] = tuple(o for o in operators if o != envelope.kid)
        signers = tuple(sorted((*open_.get(envelope.payload, ()), envelope.kid)))
        if len(signers) >= self._threshold:
            return _apply(state, change), change
        open_[envelope.payload] = signers
        left = tuple(Approval(p, operators) for p, operators in sorted(open_.items()) if operators)
        taken_back = {taken.operator: taken.times for taken in state.taken_back}
        if state.has_open(envelope.kid):
            taken_back[envelope.kid] = taken_back.get(envelope.kid, 0) + 1
        counts = tuple(TakenBack(*taken) for taken in sorted(taken_back.items()))
        return replace(state, approvals=left, taken_back=counts), None

    def punish(self, state: NetworkState, misbehaviour: Misbehaviour) -> NetworkState:
        """Take the vote of a validator that the engine convicts, until operators restore it.

        The last one keeps it, for a chain without validators never goes on. An address that is no
        validator's any more (its key was changed since) changes nothing.
        """
        for i, seat in enumerate(state.seats):
            address = Validator(seat.public_key, seat.power).address
            if address == misbehaviour.address and not seat.removed and len(state.validators) > 1:
                seats = (*state.seats[:i], seat._replace(removed=True), *state.seats[i + 1 :])
                return replace(state, seats=seats)
        return state

    def _check_possible(self, state: NetworkState, what: What) -> None:
        if isinstance(what, GenesisValidator):
            _check_seat(state, what)
        elif isinstance(what, Remove):
            _check_remove(state, what)
        elif isinstance(what, Upgrade):
            _check_upgrade(state, what)
        elif not self._regions:
            raise _impossible("a region's own chain has no registry of regions")


def _check_seat(state: NetworkState, validator: GenesisValidator) -> None:
    if not state.seats:
        raise _impossible("this chain was begun without validators")
    if Seat(*validator) in state.seats:
        raise _impossible("the validator is there with this key and power")
    others = [seat for seat in state.seats if seat.name != validator.name]
    if any(seat.public_key == validator.public_key for seat in others):
        raise _impossible("another validator has this key")
    if len(others) >= MAX_VALIDATORS:
        raise _impossible(f"there are {MAX_VALIDATORS} validators already")


def _check_remove(state: NetworkState, remove: Remove) -> None:
    seat = state.seat(remove.name)
    if seat is None:
        raise _impossible("no validator has this name")
    if not seat.removed and len(state.validators) == 1:
        raise _impossible("the last validator cannot be removed")


def _check_upgrade(state: NetworkState, upgrade: Upgrade) -> None:
    newest = state.upgrades[-1] if state.upgrades else Upgrade(FIRST_VERSION, 0)
    if upgrade.version <= newest.version or upgrade.height <= newest.height:
        log = f"version {newest.version} rules from height {newest.height}: plan a later one"
        raise _impossible(log)


def _impossible(log: str) -> Refused:
    return Refused(codes.IMPOSSIBLE, log)


def _apply(state: NetworkState, change: NetworkChange) -> NetworkState:
    seats, upgrades, what = state.seats, state.upgrades, change.what
    if isinstance(what, GenesisValidator | Remove):
        seats = tuple(seat for seat in seats if seat.name != what.name)
        if isinstance(what, GenesisValidator):
            seats = tuple(sorted((*seats, Seat(*what))))
    elif isinstance(what, Upgrade):
        upgrades = (*upgrades, what)
    return NetworkState(change.number, upgrades, seats)


def check_ahead(record: object, block: int) -> None:
    """Check that a new version of the rules begins above the engine's ``block``; raises Refused.

    For what a node lets in and votes for, not for what a block does once it is decided: that
    follows from the order of transactions alone, and not from where blocks end.
    """
    what = record.what if isinstance(record, NetworkChange) else None
    if isinstance(what, Upgrade) and what.height <= block:
        raise _impossible(f"the next block is {block}: plan the version from a later one on")


def timely(
    open_: Callable[[bytes], tuple[Envelope, object]], txs: Sequence[bytes], block: int
) -> list[bytes]:
    """Give the transactions that ``check_ahead`` lets into a block; malformed ones it leaves in."""
    return [tx for tx in txs if not _comes_late(open_, tx, block)]


def _comes_late(open_: Callable[[bytes], tuple[Envelope, object]], tx: bytes, block: int) -> bool:
    try:
        record = open_(tx)[1]
    except Refused:
        return False
    try:
        check_ahead(record, block)
    except Refused:
        return True
    return False


def decode_record(payload: bytes) -> NetworkChange:
    """Take a payload of a transaction apart; raises Refused."""
    try:
        return NetworkChange.decode(payload)
    except (MalformedRecord, InvalidKey) as e:
        raise Refused(codes.MALFORMED, str(e)) from None
