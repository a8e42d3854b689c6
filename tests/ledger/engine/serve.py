"""An application as a process of its own: ``python -m tests.ledger.engine.serve FOLDER``.

The folder holds ``genesis.cbor``; its chain is in ``chain.sqlite``, its socket is ``app.sock``. It
runs until it is killed, or until the node stops, with code 3. With a file ``newer`` in the folder
it takes itself for a program that has version 2 of the rules.
"""

import sys
import threading
from pathlib import Path

from ledger.engine.comet import chain_id
from ledger.engine.comet.node import Node
from ledger.engine.comet.server import Server
from ledger.genesis import RegionGenesis, WideGenesis
from ledger.protocol.errors import MalformedRecord
from ledger.regional.application import TABLES as REGIONAL_TABLES
from ledger.regional.application import RegionalApplication
from ledger.store import Database
from ledger.verify import Verifier
from ledger.wide.application import TABLES as WIDE_TABLES
from ledger.wide.application import WideApplication


def open_application(data: bytes, path: Path | None) -> WideApplication | RegionalApplication:
    """Open the application of a genesis, of either kind."""
    try:
        return WideApplication(WideGenesis.decode(data), Database(path, WIDE_TABLES), Verifier())
    except MalformedRecord:
        genesis = RegionGenesis.decode(data)
        return RegionalApplication(genesis, Database(path, REGIONAL_TABLES), Verifier())


def main(folder: Path) -> int:
    """Serve the application of a folder."""
    application = open_application((folder / "genesis.cbor").read_bytes(), folder / "chain.sqlite")
    if (folder / "newer").exists():
        application.VERSIONS = (1, 2)
    genesis = application.genesis
    failed = threading.Event()
    server = Server(
        Node(application, chain_id=chain_id(genesis.chain), genesis_validators=genesis.validators),
        f"unix://{folder / 'app.sock'}",
        failed=lambda _: failed.set(),
    )
    server.start()
    print("serving", flush=True)
    failed.wait()
    return 3


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
