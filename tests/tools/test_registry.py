"""What an operator signs follows the chain, and no node's word (SPEC 16, 18.4)."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.engine.abci import Answer
from ledger.genesis import WideGenesis
from ledger.light.types import LightBlock
from ledger.light.verify import UntrustedHeader
from ledger.network import NETWORK_KEY, NetworkChange, NetworkState, RegionGateways, Seat
from ledger.protocol import cbor
from ledger.trie import Trie
from ledger.wide.state import gateways_key
from tests.ledger.light.chain import Chain
from tests.ledger.light.proofs import FOUR, WideNode, with_validators
from tests.ledger.regional.generate import signer
from tools.errors import CommandError
from tools.registry import read_gateways, read_state

OPERATOR, GATEWAY = signer("operator"), signer("gateway")
REGION = b"a region"
GENESIS = with_validators(
    WideGenesis("wide", 0, ((REGION, (GATEWAY.public_key,)),), (OPERATOR.public_key,), 1)
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no header that does not come."""
    monkeypatch.setattr("ledger.proving._WAIT_S", 0.0)


def changed() -> WideNode:
    """Give a node of a chain in which one change is in effect."""
    node = WideNode(GENESIS)
    other = RegionGateways(REGION, (signer("newer").public_key,))
    change = OPERATOR.seal(NetworkChange(GENESIS.chain, 1, other).payload())
    assert node.execute(change.raw) == [0]
    return node


def made_up(key: bytes, value: bytes) -> Answer:
    """Give an answer that is proved in a state of one's own."""
    trie = Trie()
    trie.set(key, value)
    return Answer(value, trie.prove(key).encode(), trie.root(), 1)


class Lying(WideNode):
    """A node with an answer of its own, and maybe headers of its own."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(GENESIS)
        assert self.execute() == []
        self.answer = answer
        self.block: Callable[[int], LightBlock] | None = None

    def query(self, path: str, key: bytes) -> Answer:
        return self.answer

    def light_block(self, height: int) -> LightBlock:
        return super().light_block(height) if self.block is None else self.block(height)


def test_number_of_the_next_change_is_the_chains() -> None:
    node = changed()
    assert read_state(node, GENESIS).changes == 1
    assert read_gateways(node, GENESIS, REGION) == (signer("newer").public_key,)
    assert read_gateways(node, GENESIS, b"another!") == ()


def test_number_that_no_header_shows_is_not_believed(quick: None) -> None:
    seats = tuple(Seat(*validator) for validator in GENESIS.validators)
    later = NetworkState(6, (), seats).encode()
    node = Lying(made_up(NETWORK_KEY, later))
    with pytest.raises(CommandError, match="no header shows the state"):
        read_state(node, GENESIS)
    node.chain.app_hashes[1] = node.answer.app_hash
    node.block = lambda height: Chain.signed(node.chain.header(height), FOUR, ["a", "b"])
    with pytest.raises(CommandError, match="20 of 40") as refused:
        read_state(node, GENESIS)
    assert isinstance(refused.value.__cause__, UntrustedHeader)
    # and by most of the validators' word it is
    node.block = None
    assert read_state(node, GENESIS).changes == 6


def test_registry_without_its_proof_is_refused(quick: None) -> None:
    node = Lying(Answer(cbor.dumps([7]), [], bytes(32), 1))
    with pytest.raises(CommandError, match="not shown by the chain"):
        read_state(node, GENESIS)
    with pytest.raises(CommandError, match="not shown by the chain"):
        read_gateways(node, GENESIS, REGION)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**64 - 1) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=8,
)


@settings(max_examples=200)
@given(value=ANY.map(cbor.dumps) | st.binary(max_size=20), proof=st.none() | st.lists(ANY))
def test_any_answer_of_a_node_is_a_registry_or_one_sentence(
    value: bytes, proof: list[object] | None
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ledger.proving._WAIT_S", 0.0)
        for key, read in (
            (NETWORK_KEY, lambda node: read_state(node, GENESIS)),
            (gateways_key(REGION), lambda node: read_gateways(node, GENESIS, REGION)),
        ):
            answer = made_up(key, value)
            if proof is not None:
                answer = Answer(value, proof, answer.app_hash, 1)
            node = Lying(answer)
            node.chain.app_hashes[1] = answer.app_hash  # even where the validators have signed it
            try:
                found = read(node)
                assert isinstance(found, tuple) or type(found.changes) is int
            except CommandError as e:
                assert "not shown by the chain" in str(e)
