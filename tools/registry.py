"""What a network's chain holds of its validators and regions, by the word of no node.

An operator's signature stands on it: whoever could make up the number of the next change would get
one that counts later. So a light client follows the chain from the network's genesis to a header
that shows what the node answers (SPEC 13.5, 18.4).
"""

from gateway.network.folder import Genesis
from ledger import trie
from ledger.engine.abci import Answer
from ledger.genesis import WideGenesis
from ledger.light.client import Client
from ledger.light.verify import Trusted
from ledger.network import NETWORK_KEY, NetworkRules, NetworkState
from ledger.proof import gateways_of
from ledger.protocol import records
from ledger.protocol.errors import BadProof, ProtocolError
from ledger.proving import Node, NotProvable, wait_for_state
from ledger.regional.proofs import verify_newest
from ledger.wide.proofs import verify_gateways, verify_network
from tools.errors import CommandError

_PATH = "network"
_MOST_CHANGES = 0xFFFFFFFF


def read_state(node: Node, genesis: Genesis) -> NetworkState:
    """Give the registry as a header shows it; raises CommandError, and the node's OSError."""
    answer = node.query(_PATH, b"")
    try:
        if isinstance(genesis, WideGenesis):
            verify_network(answer.app_hash, answer.value, answer.proof)
        else:
            _verify_regional(answer)
        _believe(node, genesis, answer)
        state = NetworkRules.of(genesis).load(answer.value)
        records.integer(state.changes, 0, _MOST_CHANGES, "number of changes")
        return state
    except (ValueError, TypeError, NotProvable) as e:
        # a shown leaf is the application's own, unless most of the validators lie
        raise _not_shown(e) from e


def read_gateways(node: Node, genesis: WideGenesis, region: bytes) -> tuple[bytes, ...]:
    """Give a region's gateways as a header shows them; raises as ``read_state`` does."""
    answer = node.query("gateways", region)
    try:
        verify_gateways(answer.app_hash, region, answer.value, answer.proof)
        keys = gateways_of(genesis, region, answer.value)
        _believe(node, genesis, answer)
    except (ProtocolError, NotProvable) as e:
        raise _not_shown(e) from e
    return tuple(keys.values())


def _verify_regional(answer: Answer) -> None:
    """Check the registry's leaf in a region's state, shown as a member's is (SPEC 11.9)."""
    if len(answer.proof) != 3:
        raise BadProof("a proof is a list of three")
    rest, payload, in_state = answer.proof
    newest = verify_newest(answer.app_hash, rest, payload)
    trie.verify(newest.state_root, NETWORK_KEY, answer.value, trie.Proof.decode(in_state))


def _believe(node: Node, genesis: Genesis, answer: Answer) -> None:
    wait_for_state(node, Client(Trusted.start(genesis)), answer)


def _not_shown(reason: Exception) -> CommandError:
    return CommandError(f"what the node answers is not shown by the chain: {reason}")
