"""A region's folder with a chain in it, made without network: what store and audit measure."""

from pathlib import Path

from gateway import provision
from ledger.engine.abci import OK
from ledger.engine.solo import Solo
from ledger.keys import Signer
from ledger.protocol import records
from ledger.region import RegionDirectory
from ledger.verify import Verifier
from tools.bench import load


def make(folder: Path, meters: int, rounds: int) -> RegionDirectory:
    """Make a region of ``meters`` with ``rounds`` closed rounds and signed heads."""
    directory = RegionDirectory(folder)
    keys = load.meter_keys(meters)
    genesis = provision.create_region(
        directory, "bench", load.PARAMETERS, members=load.members(keys), created=load.START
    )
    fleet = load.Fleet(keys, genesis)
    gateway = Signer.load(directory.gateway_key)
    verifier = Verifier()
    application = directory.open_regional(verifier=verifier)
    try:
        node = Solo(application)
        for index in range(rounds):
            signed = fleet.round(index)
            for _, envelope in (*signed.readings, *signed.ballots):
                # just signed here: not what is measured
                verifier.admit(envelope, records.decode(envelope.payload))
            close = gateway.seal(records.Close(genesis.chain, load.FIRST_ROUND + index).payload())
            txs = [message.payload for message in signed.messages()]
            results = node.execute([*txs, close.raw]).tx_results
            assert all(result.code == OK for result in results), results
            application.sign_heads(gateway)
    finally:
        application.close()
    return directory
