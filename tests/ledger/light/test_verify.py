"""Which headers the light rules believe (SPEC 18.3), on chains of our own making."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.genesis import GenesisValidator, WideGenesis
from ledger.light.types import (
    ABSENT,
    ABSENT_SIG,
    COMMIT,
    NIL,
    LightBlock,
    Timestamp,
    Validator,
)
from ledger.light.verify import Clock, TooFewKnown, Trusted, UntrustedHeader, verify
from ledger.protocol.errors import ProtocolError
from tests.ledger.light.chain import (
    START_S,
    Chain,
    Powers,
    commit_of,
    public,
    secret,
    validator_set,
    with_commit,
    with_header,
    with_sig,
    with_validators,
)

FOUR: Powers = {"a": 10, "b": 10, "c": 10, "d": 10}
GENESIS = WideGenesis(
    "wide",
    START_S,
    (),
    validators=tuple(GenesisValidator(n, public(n), p) for n, p in FOUR.items()),
)
START = Trusted.start(GENESIS)
CHAIN = Chain(START.chain_id, lambda height: FOUR)
FIRST = CHAIN.block(1)
ONE = verify(START, FIRST)

TWO, FIVE = CHAIN.block(2), CHAIN.block(5)


def refuses(block: LightBlock, trusted: Trusted = ONE, match: str = ".") -> None:
    with pytest.raises(UntrustedHeader, match=match):
        verify(trusted, block)


def test_chain_from_genesis_is_believed_step_by_step() -> None:
    trusted = START
    for height in range(1, 5):
        trusted = verify(trusted, CHAIN.block(height))
        assert (trusted.height, trusted.hash) == (height, CHAIN.header(height).hash)


@pytest.mark.parametrize("trusted", [START, ONE], ids=["genesis", "header"])
def test_heights_are_skipped_while_the_validators_stay(trusted: Trusted) -> None:
    assert verify(trusted, CHAIN.block(1000)).height == 1000


@pytest.mark.parametrize("height", [2, 5])
@pytest.mark.parametrize(("signers", "enough"), [("abcd", True), ("abc", True), ("ab", False)])
def test_more_than_two_thirds_must_sign(height: int, signers: str, enough: bool) -> None:
    block = CHAIN.block(height, signers)
    if enough:
        assert verify(ONE, block).height == height
    else:
        refuses(block, match="20 of 40")


def test_exactly_two_thirds_are_not_enough() -> None:
    powers = {"a": 10, "b": 10, "c": 10}
    chain = Chain(START.chain_id, lambda height: powers)
    root = Trusted.block(START.chain_id, chain.block(1), chain.header(1).hash)
    refuses(chain.block(2, "ab"), root, "20 of 30")
    assert verify(root, chain.block(2, "abc")).height == 2


def test_power_counts_and_not_heads() -> None:
    powers = {"a": 21, "b": 3, "c": 3, "d": 3}
    chain = Chain(START.chain_id, lambda height: powers)
    root = Trusted.block(START.chain_id, chain.block(1), chain.header(1).hash)
    refuses(chain.block(2, "bcd"), root, "9 of 30")
    assert verify(root, chain.block(2, "a")).height == 2


def test_vote_for_nil_does_not_count() -> None:
    block = TWO
    sigs = list(commit_of(TWO.header, FOUR, "abcd").signatures)
    nil = commit_of(TWO.header, FOUR, "abcd", NIL).signatures
    refuses(with_commit(block, replace(block.commit, signatures=(*nil[:2], *sigs[2:]))))
    assert verify(ONE, with_commit(block, replace(block.commit, signatures=(*nil[:1], *sigs[1:]))))


def test_signature_for_nil_under_the_flag_of_the_block_does_not_count() -> None:
    block = TWO
    for place, sig in enumerate(commit_of(TWO.header, FOUR, "abcd", NIL).signatures[:2]):
        block = with_sig(block, place, replace(sig, flag=COMMIT))
    refuses(block, match="20 of 40")


def test_one_broken_signature_of_four_counts_as_absent() -> None:
    sig = TWO.commit.signatures[0]
    broken = replace(sig, signature=bytes(64))
    assert verify(ONE, with_sig(TWO, 0, broken)).hash == TWO.header.hash
    refuses(with_sig(with_sig(TWO, 0, broken), 1, ABSENT_SIG), match="20 of 40")


@pytest.mark.parametrize("signature", [b"", b"x", bytes(65), bytes(1000)])
def test_signature_of_another_length_does_not_count(signature: bytes) -> None:
    block = TWO
    for place in (0, 1):
        block = with_sig(block, place, replace(TWO.commit.signatures[place], signature=signature))
    refuses(block, match="20 of 40")


def test_other_chain_is_refused() -> None:
    other = Chain("gw-other", lambda height: FOUR)
    refuses(other.block(2), match="chain")


def test_signatures_of_another_chain_do_not_count() -> None:
    other = Chain("gw-other", lambda height: FOUR)
    block = with_header(other.block(2), chain_id=START.chain_id)
    block = with_commit(
        block,
        replace(block.commit, block_id=replace(block.commit.block_id, hash=block.header.hash)),
    )
    refuses(block, match="0 of 40")


def test_foreign_validators_are_refused_next_to_the_trusted_header() -> None:
    liars = {"x": 10, "y": 10}
    chain = Chain(START.chain_id, lambda height: liars)
    refuses(chain.block(2), match="other validators")
    refuses(Chain(START.chain_id, lambda height: liars).block(1), START, "other validators")


def test_foreign_validators_are_refused_further_on() -> None:
    liars = {"x": 10, "y": 10}
    with pytest.raises(TooFewKnown, match="0 of 40"):
        verify(ONE, Chain(START.chain_id, lambda height: liars).block(7))


@pytest.mark.parametrize(("known", "enough"), [("ab", True), ("a", False)])
def test_skipping_takes_more_than_a_third_of_the_trusted(known: str, enough: bool) -> None:
    powers = {**dict.fromkeys(known, 10), "x": 10, "y": 10}
    block = Chain(START.chain_id, lambda height: powers).block(9)
    if enough:
        assert verify(ONE, block).height == 9
        return
    with pytest.raises(TooFewKnown):
        verify(ONE, block)


def test_exactly_a_third_of_the_trusted_is_not_enough() -> None:
    three = {"a": 10, "b": 10, "c": 10}
    chain = Chain(START.chain_id, lambda height: three if height < 5 else {"a": 1, "x": 99})
    root = Trusted.block(START.chain_id, chain.block(1), chain.header(1).hash)
    with pytest.raises(TooFewKnown, match="10 of 30"):
        verify(root, chain.block(9))


def test_power_that_a_liar_gives_a_trusted_validator_does_not_count() -> None:
    powers = {"a": 1_000_000, "x": 1}
    with pytest.raises(TooFewKnown, match="10 of 40"):
        verify(ONE, Chain(START.chain_id, lambda height: powers).block(9))


def test_hidden_change_of_validators_is_refused() -> None:
    changed = Chain(START.chain_id, lambda height: FOUR if height < 3 else {**FOUR, "e": 70})
    trusted = verify(ONE, changed.block(2))
    hiding = CHAIN.block(3)  # signed by the former four, who are not all of them any more
    refuses(hiding, trusted, "other validators")
    assert verify(trusted, changed.block(3)).height == 3


def test_validator_that_stands_twice_is_refused() -> None:
    v = validator_set(FOUR).validators
    chain = Chain(START.chain_id, lambda height: FOUR)
    header = replace(
        chain.header(2), validators_hash=replace(TWO.validators, validators=(*v, v[0])).hash
    )
    commit = commit_of(header, FOUR, "abcd")
    commit = replace(commit, signatures=(*commit.signatures, commit.signatures[0]))
    block = with_validators(LightBlock.of(header, commit, TWO.validators), (*v, v[0]))
    refuses(block, match="twice")


def test_signature_in_two_places_is_refused() -> None:
    sigs = TWO.commit.signatures
    refuses(with_sig(with_sig(TWO, 1, ABSENT_SIG), 1, sigs[0]), match="another validator's place")


@pytest.mark.parametrize("change", [lambda s: s[:-1], lambda s: (*s, s[0]), lambda s: ()])
def test_commit_of_another_length_is_refused(change: Callable[..., tuple[object, ...]]) -> None:
    sigs = change(TWO.commit.signatures)
    refuses(with_commit(TWO, replace(TWO.commit, signatures=sigs)), match="one place")


@pytest.mark.parametrize("place", range(4))
def test_absent_validator_with_a_signature_is_refused(place: int) -> None:
    sig = replace(TWO.commit.signatures[place], flag=ABSENT)
    refuses(with_sig(TWO, place, sig), match="absent")


@pytest.mark.parametrize("flag", [0, 4, -1])
def test_unknown_kind_of_precommit_is_refused(flag: int) -> None:
    refuses(with_sig(TWO, 0, replace(TWO.commit.signatures[0], flag=flag)), match="no kind")


HEADER_CHANGES = {
    "app_hash": b"\x01" * 32,
    "time": Timestamp(START_S + 10**6, 0),
    "height": 3,
    "data_hash": bytes(32),
    "next_validators_hash": bytes(32),
    "last_results_hash": b"",
    "proposer_address": bytes(20),
    "last_commit_hash": bytes(32),
    "consensus_hash": bytes(32),
    "evidence_hash": bytes(32),
}


@pytest.mark.parametrize("name", HEADER_CHANGES)
def test_altered_header_is_refused(name: str) -> None:
    altered = with_header(TWO, **{name: HEADER_CHANGES[name]})
    refuses(altered)
    # and so it is with a commit that pretends to be for it
    block_id = replace(TWO.commit.block_id, hash=altered.header.hash)
    refuses(with_commit(altered, replace(TWO.commit, block_id=block_id)))


@pytest.mark.parametrize("change", [{"height": 3}, {"round": 1}, {"round": -1}])
def test_altered_commit_is_refused(change: dict[str, int]) -> None:
    refuses(with_commit(TWO, replace(TWO.commit, **change)))  # type: ignore[arg-type]


def test_commit_of_another_height_is_refused_though_all_have_signed_it() -> None:
    later = commit_of(replace(TWO.header, height=3), FOUR, "abcd")
    block_id = replace(later.block_id, hash=TWO.header.hash)
    bare = replace(later, block_id=block_id, signatures=())
    names = {public(name): name for name in FOUR}
    signed = tuple(
        replace(sig, signature=secret(names[v.key]).sign(bare.sign_bytes(START.chain_id, sig)))
        for v, sig in zip(TWO.validators.validators, later.signatures, strict=True)
    )
    refuses(with_commit(TWO, replace(bare, signatures=signed)), match="another height")


def test_more_power_than_there_is_is_refused() -> None:
    huge = {"a": 1 << 61, "b": 1}
    chain = Chain(START.chain_id, lambda height: huge)
    with pytest.raises(UntrustedHeader, match="more power"):
        Trusted.block(START.chain_id, chain.block(1), chain.header(1).hash)


def test_altered_time_of_a_precommit_does_not_count() -> None:
    block = TWO
    for place in (0, 1):
        sig = TWO.commit.signatures[place]
        block = with_sig(block, place, replace(sig, time=Timestamp(START_S, 1)))
    refuses(block, match="20 of 40")


def test_other_parts_of_the_same_header_are_not_what_was_signed() -> None:
    block_id = replace(TWO.commit.block_id, parts=replace(TWO.commit.block_id.parts, total=2))
    refuses(with_commit(TWO, replace(TWO.commit, block_id=block_id)), match="0 of 40")


@pytest.mark.parametrize(
    "change",
    [
        lambda v: replace(v, power=v.power + 1),
        lambda v: replace(v, address=bytes(20)),
        lambda v: replace(v, power=0),
        lambda v: replace(v, power=-1),
        lambda v: Validator.of(b"short", 10),
        lambda v: Validator.of(bytes(32), 1 << 62),
    ],
)
def test_altered_validator_is_refused(change: Callable[[Validator], Validator]) -> None:
    first, *rest = TWO.validators.validators
    refuses(with_validators(TWO, [change(first), *rest]))


def test_set_without_validators_or_with_too_many_is_refused() -> None:
    refuses(with_validators(TWO, []), match="not 1 to")
    many = [Validator.of(i.to_bytes(32, "big"), 1) for i in range(1001)]
    refuses(with_validators(TWO, many), match="not 1 to")


def test_header_that_is_not_above_or_not_later_is_refused() -> None:
    trusted = verify(ONE, FIVE)
    refuses(FIVE, trusted, "not above")
    refuses(TWO, trusted, "not above")
    early = replace(CHAIN.header(6), time=CHAIN.header(5).time)
    refuses(Chain.signed(early, FOUR, FOUR), trusted, "not later")


@pytest.mark.parametrize("nanos", [-1, 1_000_000_000])
def test_time_without_meaning_is_refused(nanos: int) -> None:
    odd = replace(CHAIN.header(2), time=Timestamp(START_S + 20, nanos))
    refuses(Chain.signed(odd, FOUR, FOUR), match="time")


def test_header_of_another_block_format_is_refused() -> None:
    odd = replace(CHAIN.header(2), version=replace(TWO.header.version, block=12))
    refuses(Chain.signed(odd, FOUR, FOUR), match="v0.38")


def test_trust_ends_after_the_trusting_period() -> None:
    time = TWO.header.time.seconds
    assert verify(ONE, TWO, Clock(time, trusting_period_s=100))
    with pytest.raises(UntrustedHeader, match="trusting period"):
        verify(ONE, TWO, Clock(ONE.time.seconds + 101, trusting_period_s=100))


def test_header_from_the_future_is_refused() -> None:
    time = TWO.header.time.seconds
    assert verify(ONE, TWO, Clock(time - 9))
    with pytest.raises(UntrustedHeader, match="future"):
        verify(ONE, TWO, Clock(time - 10))


def test_trusted_hash_takes_that_header_and_no_other() -> None:
    chain = START.chain_id
    assert Trusted.block(chain, FIVE, FIVE.header.hash).height == 5
    with pytest.raises(UntrustedHeader, match="not the trusted"):
        Trusted.block(chain, FIVE, TWO.header.hash)
    with pytest.raises(UntrustedHeader, match="20 of 40"):
        Trusted.block(chain, CHAIN.block(5, "ab"), FIVE.header.hash)
    with pytest.raises(UntrustedHeader, match="chain"):
        Trusted.block("gw-other", FIVE, FIVE.header.hash)


def test_genesis_without_validators_is_no_root() -> None:
    with pytest.raises(UntrustedHeader, match="no validators"):
        Trusted.start(WideGenesis("wide", 0, ()))


def test_validators_stand_in_the_order_of_cometbft() -> None:
    found = validator_set({"a": 1, "b": 5, "c": 5, "d": 9}).validators
    assert [v.power for v in found] == [9, 5, 5, 1]
    assert found[1].address < found[2].address


POWERS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 50), min_size=1)


@given(POWERS, POWERS, st.sets(st.sampled_from("abcdefgh")), st.integers(2, 3))
def test_belief_follows_the_two_shares_alone(
    old: Powers, new: Powers, signers: set[str], height: int
) -> None:
    chain = Chain(START.chain_id, lambda h: old if h < 2 else new)
    root = Trusted.block(START.chain_id, chain.block(1), chain.header(1).hash)
    block = chain.block(height, sorted(signers))
    signed = sum(new[name] for name in new if name in signers)
    known = sum(old[name] for name in old if name in signers and name in new)
    decided = 3 * signed > 2 * sum(new.values())
    if decided and (height == 2 or 3 * known > sum(old.values())):
        assert verify(root, block).height == height
    else:
        refuses(block, root)


@given(st.integers(0, len(TWO.encode()) - 1), st.integers(1, 255))
def test_light_block_with_any_byte_altered_says_nothing_else(place: int, mask: int) -> None:
    data = bytearray(TWO.encode())
    data[place] ^= mask
    try:
        trusted = verify(ONE, LightBlock.decode(bytes(data)))
    except ProtocolError:
        return
    assert trusted == verify(ONE, TWO)
