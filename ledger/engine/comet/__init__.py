"""The engine that runs where one machine is not enough: CometBFT v0.38, by ABCI 2.0.

CometBFT is a process of its own; it orders transactions among validators and calls ``server`` over
a socket, ``node`` makes application calls of that, ``gate`` keeps its mempool small and ``rpc``
speaks to its other side.
"""


def chain_id(chain: bytes) -> str:
    """Give the name under which CometBFT knows one of our chains, by the chain's 8-byte id."""
    return f"gw-{chain.hex()}"
