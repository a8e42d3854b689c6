"""The network registry: validators, versions and regions by m of n (SPEC 16)."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.engine.abci import DUPLICATE_VOTE, Misbehaviour, Refused, Validator
from ledger.genesis import MAX_POWER, MAX_VALIDATORS, GenesisValidator
from ledger.network import (
    MAX_ENGINE_HEIGHT,
    MAX_TAKEN_BACK,
    NetworkChange,
    NetworkRules,
    NetworkState,
    RegionGateways,
    Remove,
    Seat,
    Upgrade,
    decode_record,
    validator_updates,
)
from ledger.protocol import cbor, records
from ledger.protocol.errors import InvalidKey, MalformedRecord, ProtocolError
from ledger.regional import codes
from tests.ledger.keys_of import ed25519, signer

CHAIN = b"a chain."
OPERATORS = [signer(f"network operator {i}") for i in range(3)]
GATEWAYS = tuple(signer(f"network gateway {i}").public_key for i in range(17))
KEYS = [ed25519(f"validator {i}") for i in range(MAX_VALIDATORS + 1)]
A, B, C = (GenesisValidator(name, KEYS[i], 10) for i, name in enumerate("abc"))
PUBLIC = tuple(key.public_key for key in OPERATORS)


class Registry:
    """One chain's registry as an application keeps it."""

    def __init__(
        self, *validators: GenesisValidator, threshold: int = 2, regions: bool = True
    ) -> None:
        self.rules = NetworkRules(CHAIN, PUBLIC, threshold, validators, regions=regions)
        self.state = self.rules.load(None)

    def approve(self, what, operator: int = 0, number: int | None = None) -> NetworkChange | None:
        """Send one operator's approval; gives the change in force by it, raises Refused."""
        change = NetworkChange(CHAIN, number or self.state.changes + 1, what)
        return self.send(change, operator)

    def send(self, change: NetworkChange, operator: int) -> NetworkChange | None:
        envelope = OPERATORS[operator].seal(change.payload())
        key = self.rules.check(self.state, envelope, decode_record(envelope.payload))
        assert key == PUBLIC[operator]
        self.state, in_force = self.rules.approve(self.state, envelope, change)
        assert self.rules.load(self.state.encode()) == self.state
        return in_force

    def change(self, what) -> tuple[Validator, ...]:
        """Send two approvals; gives the validators whose power changed."""
        before = self.state
        assert self.approve(what, 0) is None
        in_force = self.approve(what, 1)
        assert in_force is not None
        assert in_force.what == what
        return validator_updates(before, self.state)

    def refuses(self, what, operator: int = 0, number: int | None = None) -> int:
        before = self.state
        with pytest.raises(Refused) as caught:
            self.approve(what, operator, number)
        assert self.state == before
        return caught.value.code

    def punish(self, key: bytes) -> tuple[Validator, ...]:
        before = self.state
        convicted = Misbehaviour(DUPLICATE_VOTE, Validator(key, 1).address, 7)
        self.state = self.rules.punish(self.state, convicted)
        assert self.rules.load(self.state.encode()) == self.state
        return validator_updates(before, self.state)


# the record

CHANGES = {
    "validator": A,
    "most power": GenesisValidator("a" * 32, KEYS[0], MAX_POWER),
    "remove": Remove("gw-a"),
    "version": Upgrade(2, 1),
    "last version": Upgrade(0xFFFFFFFF, MAX_ENGINE_HEIGHT),
    "region": RegionGateways(b"region..", GATEWAYS[:1]),
    "region of 16": RegionGateways(b"region..", GATEWAYS[:16]),
}


@pytest.mark.parametrize("what", CHANGES.values(), ids=list(CHANGES))
def test_change_comes_back_from_its_payload(what) -> None:
    for number in (1, 0xFFFFFFFF):
        change = NetworkChange(CHAIN, number, what)
        assert NetworkChange.decode(change.payload()) == change
        assert len(OPERATORS[0].seal(change.payload()).raw) <= 1024


def test_payload_has_the_layout_of_the_specification() -> None:
    def fields(what) -> object:
        return cbor.loads(NetworkChange(CHAIN, 3, what).payload())

    assert fields(A) == [10, 1, CHAIN, 3, 1, ["a", KEYS[0], 10]]
    assert fields(Remove("a")) == [10, 1, CHAIN, 3, 2, ["a"]]
    assert fields(Upgrade(2, 900)) == [10, 1, CHAIN, 3, 3, [2, 900]]
    regions = [10, 1, CHAIN, 3, 4, [b"region..", list(GATEWAYS[:2])]]
    assert fields(RegionGateways(b"region..", GATEWAYS[:2])) == regions


BROKEN = [
    (3, 0), (3, 1 << 32), (3, True), (3, None),
    (4, 0), (4, 5), (4, True), (4, 2), (4, 3), (4, 4),
    (5, None), (5, []), (5, ["a", KEYS[0]]), (5, ["a", KEYS[0], 10, 1]),
    (5, ["", KEYS[0], 10]), (5, ["a b", KEYS[0], 10]), (5, ["a" * 33, KEYS[0], 10]),
    (5, ["a", KEYS[0][:31], 10]), (5, ["a", GATEWAYS[0], 10]),
    (5, ["a", KEYS[0], 0]), (5, ["a", KEYS[0], -1]), (5, ["a", KEYS[0], MAX_POWER + 1]),
    (5, ["a", KEYS[0], True]),
]  # fmt: skip


@pytest.mark.parametrize(("at", "value"), BROKEN)
def test_broken_field_is_malformed(at: int, value: object) -> None:
    fields = cbor.loads(NetworkChange(CHAIN, 1, A).payload())
    fields[at] = value
    with pytest.raises(MalformedRecord):
        NetworkChange.decode(cbor.dumps(fields))


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        (2, []), (2, [""]), (2, ["a", "b"]), (2, [b"a"]), (2, ["."]),
        (3, [1, 5]), (3, [2, 0]), (3, [2, MAX_ENGINE_HEIGHT + 1]), (3, [1 << 32, 5]),
        (3, [2]), (3, [2, 5, 1]), (3, [True, 5]), (3, [2, None]),
        (4, [bytes(7), list(GATEWAYS[:1])]), (4, [bytes(8), []]), (4, [bytes(8)]),
        (4, [bytes(8), list(GATEWAYS)]), (4, [bytes(8), [GATEWAYS[0]] * 2]),
        (4, [bytes(8), [KEYS[0]]]), (4, [bytes(8), None]),
    ],
)  # fmt: skip
def test_broken_arguments_are_malformed(action: int, arguments: object) -> None:
    with pytest.raises(MalformedRecord):
        NetworkChange.decode(cbor.dumps([10, 1, CHAIN, 1, action, arguments]))


@pytest.mark.parametrize(
    ("action", "arguments"),
    [(1, ["a", bytes(32), 1]), (4, [bytes(8), [b"\x02" + b"\xff" * 32]])],
    ids=["validator", "gateway"],
)
def test_key_that_is_no_point_is_refused(action: int, arguments: list[object]) -> None:
    payload = cbor.dumps([10, 1, CHAIN, 1, action, arguments])
    with pytest.raises(InvalidKey):
        NetworkChange.decode(payload)
    with pytest.raises(Refused) as caught:
        decode_record(payload)
    assert caught.value.code == codes.MALFORMED


def test_other_record_is_no_network_change() -> None:
    with pytest.raises(MalformedRecord, match="type 8"):
        NetworkChange.decode(records.Close(CHAIN, 7).payload())


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.binary(max_size=40)
    | st.sampled_from([KEYS[0], GATEWAYS[0], CHAIN])
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=12,
)


@given(st.sampled_from(list(CHANGES.values())), st.integers(0, 5), VALUES)
def test_any_value_in_any_field_is_read_back_or_refused(what, place: int, value: object) -> None:
    fields = cbor.loads(NetworkChange(CHAIN, 1, what).payload())
    fields[place] = value
    payload = cbor.dumps(fields)
    try:
        change = NetworkChange.decode(payload)
    except ProtocolError:
        return
    assert change.payload() == payload


@given(st.binary(max_size=200))
def test_any_bytes_give_a_change_or_one_declared_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        NetworkChange.decode(data)


# approvals


def test_change_takes_effect_with_the_approval_that_makes_it_m() -> None:
    registry = Registry(A)
    assert registry.approve(B, 0) is None
    assert registry.state.changes == 0
    assert registry.state.validators == (Validator(KEYS[0], 10),)
    assert registry.approve(B, 2) == NetworkChange(CHAIN, 1, B)
    assert registry.state.validators == (Validator(KEYS[0], 10), Validator(KEYS[1], 10))
    assert (registry.state.changes, registry.state.approvals) == (1, ())


def test_one_operator_is_enough_where_the_genesis_says_so() -> None:
    registry = Registry(A, threshold=1)
    assert registry.approve(B) is not None


def test_same_approval_again_is_a_duplicate() -> None:
    registry = Registry(A)
    registry.approve(B)
    assert registry.refuses(B) == codes.DUPLICATE


def test_operator_has_one_open_approval() -> None:
    registry = Registry(A)
    registry.approve(B, 0)
    registry.approve(C, 0)
    assert [a.operators for a in registry.state.approvals] == [(OPERATORS[0].address,)]
    assert registry.approve(B, 1) is None  # the first has taken its approval of B back
    assert registry.approve(C, 1) is not None


def test_operator_takes_back_at_most_eight_approvals_of_a_number() -> None:
    registry = Registry(A)
    minds = [B._replace(power=power) for power in range(1, 11)]
    for mind in minds[: MAX_TAKEN_BACK + 1]:
        assert registry.approve(mind, 0) is None
    assert registry.refuses(minds[9], 0) == codes.IMPOSSIBLE
    assert registry.refuses(minds[0], 0) == codes.IMPOSSIBLE  # back to the first is a change too
    assert registry.refuses(minds[8], 0) == codes.DUPLICATE
    assert registry.approve(minds[9], 1) is None  # the others are as free as before
    assert registry.approve(minds[8], 2) is not None  # and its last word counts
    assert registry.state.taken_back == ()
    for mind in minds[:8]:  # the next number begins anew
        assert registry.approve(mind, 0) is None


def test_first_approval_takes_nothing_back() -> None:
    registry = Registry(A)
    registry.approve(B, 0)
    assert registry.state.taken_back == ()
    registry.approve(C, 0)
    assert registry.state.taken_back == ((OPERATORS[0].address, 1),)
    assert cbor.loads(registry.state.encode())[4] == [[OPERATORS[0].address, 1]]


def test_approvals_of_a_number_that_is_taken_end() -> None:
    registry = Registry(A)
    registry.approve(C, 2)
    registry.change(B)
    assert registry.state.approvals == ()
    assert registry.refuses(C, 1, number=1) == codes.WRONG_NUMBER


def test_numbers_count_without_gaps() -> None:
    registry = Registry(A)
    assert registry.refuses(B, number=2) == codes.WRONG_NUMBER
    registry.change(B)
    assert registry.refuses(C, number=1) == codes.WRONG_NUMBER
    assert registry.refuses(C, number=3) == codes.WRONG_NUMBER
    registry.change(C)
    assert registry.state.changes == 2


def test_stranger_and_other_chain_are_refused() -> None:
    registry = Registry(A)
    change = NetworkChange(CHAIN, 1, B)
    with pytest.raises(Refused) as caught:
        registry.rules.check(registry.state, signer("stranger").seal(change.payload()), change)
    assert caught.value.code == codes.UNKNOWN_SIGNER
    with pytest.raises(Refused) as caught:
        registry.send(dataclasses.replace(change, chain=b"another."), 0)
    assert caught.value.code == codes.WRONG_CHAIN


def test_chain_without_operators_has_no_changes() -> None:
    rules = NetworkRules(CHAIN, (), 0, [A])
    change = NetworkChange(CHAIN, 1, B)
    with pytest.raises(Refused) as caught:
        rules.check(rules.load(None), OPERATORS[0].seal(change.payload()), change)
    assert caught.value.code == codes.UNKNOWN_SIGNER


# validators


def test_joining_leaving_and_rotation_tell_the_engine() -> None:
    registry = Registry(A)
    assert registry.change(B) == (Validator(KEYS[1], 10),)
    assert registry.change(B._replace(power=3)) == (Validator(KEYS[1], 3),)
    rotated = registry.change(B._replace(public_key=KEYS[2], power=3))
    assert set(rotated) == {Validator(KEYS[1], 0), Validator(KEYS[2], 3)}
    assert registry.change(Remove("b")) == (Validator(KEYS[2], 0),)


def test_sole_validator_may_take_another_key() -> None:
    registry = Registry(A)
    updates = registry.change(A._replace(public_key=KEYS[9]))
    assert set(updates) == {Validator(KEYS[0], 0), Validator(KEYS[9], 10)}


def test_changes_of_one_block_reach_the_engine_as_one() -> None:
    registry = Registry(A, B)
    before = registry.state
    registry.change(B._replace(power=4))
    registry.change(Remove("b"))
    registry.change(B._replace(name="b-again", power=10))
    assert validator_updates(before, registry.state) == ()
    registry.change(Remove("b-again"))
    assert validator_updates(before, registry.state) == (Validator(KEYS[1], 0),)


@pytest.mark.parametrize(
    "what",
    [
        Remove("a"),
        Remove("nobody"),
        A,
        B._replace(public_key=KEYS[0]),
    ],
    ids=["the last one leaves", "nobody leaves", "nothing changes", "another one's key"],
)
def test_impossible_change_is_refused(what) -> None:
    assert Registry(A).refuses(what) == codes.IMPOSSIBLE


def test_limit_on_validators() -> None:
    full = [GenesisValidator(f"v{i}", KEYS[i], 1) for i in range(MAX_VALIDATORS)]
    registry = Registry(*full)
    assert registry.refuses(GenesisValidator("more", KEYS[-1], 1)) == codes.IMPOSSIBLE
    registry.change(GenesisValidator("v0", KEYS[-1], 1))  # one that is there may change


def test_chain_begun_without_validators_gets_none() -> None:
    assert Registry().refuses(A) == codes.IMPOSSIBLE
    assert Registry().refuses(Remove("a")) == codes.IMPOSSIBLE


# punishment


def test_convicted_validator_loses_its_vote_until_it_is_restored() -> None:
    registry = Registry(A, B)
    assert registry.punish(KEYS[1]) == (Validator(KEYS[1], 0),)
    assert registry.punish(KEYS[1]) == ()
    assert registry.state.seat("b") == Seat("b", KEYS[1], 10, removed=True)
    assert registry.change(B) == (Validator(KEYS[1], 10),)
    assert registry.punish(KEYS[1]) == (Validator(KEYS[1], 0),)  # and again


def test_last_validator_keeps_its_vote() -> None:
    registry = Registry(A, B)
    registry.punish(KEYS[0])
    assert registry.punish(KEYS[1]) == ()
    assert registry.state.validators == (Validator(KEYS[1], 10),)
    assert registry.refuses(Remove("b")) == codes.IMPOSSIBLE
    assert registry.change(Remove("a")) == ()  # one without a vote may go


def test_key_that_is_no_validators_any_more_changes_nothing() -> None:
    registry = Registry(A, B)
    registry.change(B._replace(public_key=KEYS[5]))
    before = registry.state
    assert registry.punish(KEYS[1]) == ()
    assert registry.state == before


def test_approval_that_misbehaviour_made_impossible_cannot_be_completed() -> None:
    registry = Registry(A, B)
    registry.approve(Remove("a"), 0)
    registry.punish(KEYS[1])
    assert registry.refuses(Remove("a"), 1) == codes.IMPOSSIBLE


# versions and regions


def test_versions_rule_from_their_heights_on() -> None:
    registry = Registry(A)
    assert registry.state.version_at(MAX_ENGINE_HEIGHT) == 1
    assert registry.change(Upgrade(2, 100)) == ()
    registry.change(Upgrade(5, 200))
    found = [registry.state.version_at(h) for h in (1, 99, 100, 199, 200, 1000)]
    assert found == [1, 1, 2, 2, 5, 5]


@pytest.mark.parametrize("what", [Upgrade(2, 300), Upgrade(3, 200), Upgrade(3, 100)])
def test_version_that_does_not_rise_is_impossible(what: Upgrade) -> None:
    registry = Registry(A)
    registry.change(Upgrade(2, 200))
    assert registry.refuses(what) == codes.IMPOSSIBLE


def test_regions_are_changed_on_the_wide_area_chain_alone() -> None:
    what = RegionGateways(b"region..", GATEWAYS[:2])
    assert Registry(A).change(what) == ()
    assert Registry(regions=True).change(what) == ()  # also without validators
    assert Registry(A, regions=False).refuses(what) == codes.IMPOSSIBLE


# properties

NAMES = st.sampled_from(["a", "b", "c", "d"])
WHATS = st.one_of(
    st.builds(GenesisValidator, NAMES, st.sampled_from(KEYS[:6]), st.integers(1, 3)),
    st.builds(Remove, NAMES),
    st.builds(Upgrade, st.integers(2, 5), st.integers(1, 9)),
    st.builds(RegionGateways, st.just(b"region.."), st.just(GATEWAYS[:1])),
)
STEPS = st.lists(
    st.tuples(st.just("approve"), WHATS, st.integers(0, 2))
    | st.tuples(st.just("punish"), st.sampled_from(KEYS[:6]), st.just(0)),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(1, 3))
def test_registry_always_has_a_validator_and_stays_whole(steps, threshold: int) -> None:
    registry = Registry(A, B, C, threshold=threshold)
    powers = {v.public_key: v.power for v in registry.state.validators}
    for kind, what, operator in steps:
        before = registry.state
        if kind == "punish":
            registry.punish(what)
        else:
            try:
                registry.approve(what, operator)
            except Refused as refused:
                assert refused.code in (codes.IMPOSSIBLE, codes.DUPLICATE)
        _check_whole(registry.state)
        assert 0 <= registry.state.changes - before.changes <= 1
        # the engine keeps its own table by the updates alone
        for validator in validator_updates(before, registry.state):
            known = powers.pop(validator.public_key, None)
            assert validator.power or known  # CometBFT stops at the removal of a stranger
            if validator.power:
                powers[validator.public_key] = validator.power
        assert powers == {v.public_key: v.power for v in registry.state.validators}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 12)), max_size=80), st.integers(1, 3))
def test_approvals_let_in_for_one_number_are_bounded(steps, threshold: int) -> None:
    registry = Registry(A, threshold=threshold)
    let_in = dict.fromkeys(range(3), 0)
    for operator, power in steps:
        number = registry.state.changes
        try:
            registry.approve(B._replace(power=power), operator)
        except Refused as refused:
            assert refused.code in (codes.IMPOSSIBLE, codes.DUPLICATE)
            continue
        if registry.state.changes != number:
            let_in = dict.fromkeys(range(3), 0)
            assert registry.state.taken_back == ()
            continue
        let_in[operator] += 1
        assert let_in[operator] <= MAX_TAKEN_BACK + 1
        known = {taken.operator: taken.times for taken in registry.state.taken_back}
        for i, count in let_in.items():
            assert known.get(OPERATORS[i].address, 0) == max(count - 1, 0)


def _check_whole(state: NetworkState) -> None:
    assert state.validators
    assert len({seat.name for seat in state.seats}) == len(state.seats)
    assert len({seat.public_key for seat in state.seats}) == len(state.seats)
    assert list(state.seats) == sorted(state.seats)
    signers = [operator for approval in state.approvals for operator in approval.operators]
    assert len(set(signers)) == len(signers)
    assert all(approval.operators for approval in state.approvals)
    for approval in state.approvals:
        assert NetworkChange.decode(approval.payload).number == state.changes + 1
    versions = list(state.upgrades)
    assert versions == sorted(versions)
