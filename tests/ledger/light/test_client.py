"""Following a chain over nodes that may lie: bisection, witnesses, hostile providers."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.genesis import GenesisValidator, WideGenesis
from ledger.light.client import Client, Divergence
from ledger.light.types import LightBlock
from ledger.light.verify import Trusted, UntrustedHeader, verify
from tests.ledger.light.chain import START_S, Chain, Powers, public

FOUR: Powers = {"a": 10, "b": 10, "c": 10, "d": 10}


def root(powers: Powers = FOUR) -> Trusted:
    known = tuple(GenesisValidator(name, public(name), power) for name, power in powers.items())
    return Trusted.start(WideGenesis("wide", START_S, (), validators=known))


CHAIN_ID = root().chain_id


def rotating(height: int) -> Powers:
    """Give four validators of which one goes and one comes every ten heights."""
    first = height // 10
    return {f"v{number}": 10 for number in range(first, first + 4)}


def test_steady_validators_take_one_request() -> None:
    chain = Chain(CHAIN_ID, lambda height: FOUR)
    client = Client(root())
    assert client.follow(chain, 5000).header == chain.header(5000)
    assert chain.asked == [5000]
    client.follow(chain, 5001)
    assert [block.header.height for block in client.path] == [5000, 5001]


@pytest.mark.parametrize("height", [1, 9, 10, 11, 55, 400])
def test_changing_validators_are_followed_by_bisection(height: int) -> None:
    start = root(rotating(1))
    chain = Chain(start.chain_id, rotating)
    client = Client(start)
    client.follow(chain, height)
    assert client.trusted.hash == chain.header(height).hash
    assert len(chain.asked) <= height // 10 * 4 + 1
    trusted = start  # the path alone leads there too
    for block in client.path:
        trusted = verify(trusted, block)
    assert trusted == client.trusted


def test_all_validators_replaced_at_once_are_followed_height_by_height() -> None:
    chain = Chain(CHAIN_ID, lambda height: FOUR if height < 37 else {"x": 1, "y": 1})
    client = Client(root())
    client.follow(chain, 60)
    heights = [block.header.height for block in client.path]
    assert 36 in heights
    assert 37 in heights
    assert client.trusted.hash == chain.header(60).hash


@given(st.data())
def test_random_histories_are_followed(data: st.DataObject) -> None:
    names = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9), min_size=1)
    sets = data.draw(st.lists(names, min_size=1, max_size=6))
    start = root(sets[0])
    chain = Chain(start.chain_id, lambda height: sets[min(height // 4, len(sets) - 1)])
    height = data.draw(st.integers(1, 30))
    client = Client(start)
    client.follow(chain, height)
    assert client.trusted.hash == chain.header(height).hash


class Lying(Chain):
    """Tells another application hash at one height, and has these validators sign it."""

    def __init__(self, chain: Chain, height: int, signers: Powers) -> None:
        super().__init__(chain.chain_id, chain.powers_at)
        self.lie_at = height
        self.signers = signers

    def light_block(self, height: int) -> LightBlock:
        if height != self.lie_at:
            return self.block(height)
        header = replace(self.header(height), app_hash=b"\x13" * 32)
        return self.signed(header, self.powers_at(height), self.signers)


def test_false_state_needs_two_thirds_of_the_validators() -> None:
    chain = Chain(CHAIN_ID, lambda height: FOUR)
    client = Client(root())
    with pytest.raises(UntrustedHeader, match="20 of 40"):
        client.follow(Lying(chain, 8, {"a": 10, "b": 10}), 8)
    assert client.trusted == root()
    assert client.path == []


def test_provider_that_gives_another_height_is_refused() -> None:
    chain = Chain(CHAIN_ID, lambda height: FOUR)

    class Elsewhere(Chain):
        def light_block(self, height: int) -> LightBlock:
            return self.block(height + 1)

    with pytest.raises(UntrustedHeader, match="height 9, not 8"):
        Client(root()).follow(Elsewhere(CHAIN_ID, chain.powers_at), 8)


def test_hostile_provider_cannot_keep_a_client_busy() -> None:
    """Strangers' headers all the way down: the search ends next to what is trusted."""
    strangers = Chain(CHAIN_ID, lambda height: {"x": 1})
    with pytest.raises(UntrustedHeader):
        Client(root()).follow(strangers, 1 << 40)
    assert len(strangers.asked) <= 41


def test_provider_without_the_block_raises_what_it_raises() -> None:
    class Empty(Chain):
        def light_block(self, height: int) -> LightBlock:
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        Client(root()).follow(Empty(CHAIN_ID, lambda height: FOUR), 8)


def test_witness_with_the_same_header_agrees() -> None:
    chain = Chain(CHAIN_ID, lambda height: FOUR)
    client = Client(root())
    client.follow(chain, 8)
    client.compare(chain)


def test_attack_of_the_validators_is_seen_by_comparing() -> None:
    chain = Chain(CHAIN_ID, lambda height: FOUR)
    lie = Lying(chain, 8, {"a": 10, "b": 10, "c": 10})
    client = Client(root())
    client.follow(lie, 8)  # more than two thirds signed: nothing to be seen from one node alone
    with pytest.raises(Divergence, match="signed two chains") as raised:
        client.compare(chain)
    assert chain.header(8).hash.hex() in str(raised.value)
    assert client.trusted.hash.hex() in str(raised.value)


def test_lying_witness_is_told_from_an_attack() -> None:
    chain = Chain(CHAIN_ID, lambda height: FOUR)
    client = Client(root())
    client.follow(chain, 8)
    with pytest.raises(Divergence, match="cannot be believed"):
        client.compare(Lying(chain, 8, {"a": 10}))
