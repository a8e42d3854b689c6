"""Where the files of a region are, and opening them.

genesis.cbor            the regional chain's genesis; a folder without it is no region
wide-genesis.cbor       the genesis of the wide-area chain that summaries go up to
gateway.toml            settings of the gateway
keys/NAME.key           secret keys: gateway.key, operator-1.key, ...
ledger/regional.sqlite  the regional chain
ledger/wide.sqlite      this gateway's copy of the wide-area chain
ledger/snapshots/       what nodes that join are given
gateway/queue.sqlite    inbox and outbox
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ledger.genesis import RegionGenesis, WideGenesis
from ledger.protocol.errors import ProtocolError
from ledger.regional import blocks as regional_blocks
from ledger.regional.application import RegionalApplication
from ledger.store import Database, StoreError
from ledger.verify import Verifier
from ledger.wide import store as wide_store
from ledger.wide.application import WideApplication

_MOST_GENESIS_BYTES = 16 << 20

_Genesis = TypeVar("_Genesis", RegionGenesis, WideGenesis)


class RegionError(Exception):
    """A folder is not a region, or a genesis in it cannot be read; says what to do."""


class RegionDirectory:
    """The paths of one region's files, whether or not they exist."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.genesis = path / "genesis.cbor"
        self.wide_genesis = path / "wide-genesis.cbor"
        self.config = path / "gateway.toml"
        self.keys = path / "keys"
        self.gateway_key = self.keys / "gateway.key"
        self.regional = path / "ledger" / "regional.sqlite"
        self.wide = path / "ledger" / "wide.sqlite"
        self.snapshots = path / "ledger" / "snapshots"
        self.queue = path / "gateway" / "queue.sqlite"

    def __repr__(self) -> str:
        return f"RegionDirectory({str(self.path)!r})"

    def load_genesis(self) -> RegionGenesis:
        """Read the region's genesis; raises RegionError."""
        return _load(self.genesis, RegionGenesis.decode, "a region's genesis")

    def load_wide_genesis(self) -> WideGenesis:
        """Read the genesis of the wide-area chain; raises RegionError."""
        return _load(self.wide_genesis, WideGenesis.decode, "the genesis of a wide-area chain")

    def open_regional(
        self, *, read_only: bool = False, verifier: Verifier | None = None
    ) -> RegionalApplication:
        """Open the regional chain; ``close`` it afterwards. Raises RegionError or StoreError.

        One process may write; readers may come while it does. Who writes begins where the newest
        head ends: StoreError where state or history are not the ones that this head names.
        """
        genesis = self.load_genesis()
        database = Database(self.regional, regional_blocks.TABLES, read_only=read_only)
        try:
            application = RegionalApplication(genesis, database, verifier or Verifier())
            if not read_only:
                _check_position(application, self.regional)
        except BaseException:
            database.close()
            raise
        return application

    def open_wide(
        self,
        *,
        read_only: bool = False,
        verifier: Verifier | None = None,
        application: type[WideApplication] = WideApplication,
    ) -> WideApplication:
        """Open the wide-area chain; ``close`` it afterwards. Raises RegionError or StoreError.

        ``application`` is its rules: another class than the usual one for trials of what is wrong.
        """
        genesis = self.load_wide_genesis()
        database = Database(self.wide, wide_store.TABLES, read_only=read_only)
        try:
            return application(genesis, database, verifier or Verifier())
        except BaseException:
            database.close()
            raise


def _check_position(application: RegionalApplication, path: Path) -> None:
    height = application.height
    if not height:
        return
    head = application.blocks.head(height)
    roots = application.state.root(), application.log.root(height - 1)
    if roots != (head.state_root, head.history_root):
        raise StoreError(
            f"{path} is damaged or was changed: its state is not the one of block {height}; "
            "what would be built on it, no audit would pass"
        )


def _load(path: Path, decode: Callable[[bytes], _Genesis], what: str) -> _Genesis:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_GENESIS_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise RegionError(
            f"{path} does not exist, so {path.parent} is not the folder of a region: "
            "name the folder that genesis.cbor is in"
        ) from None
    except OSError as e:
        raise RegionError(f"{path} cannot be read: {e.strerror}") from e
    if len(data) > _MOST_GENESIS_BYTES:
        raise RegionError(f"{path} is larger than any genesis: copy it anew from where it was made")
    try:
        return decode(data)
    except ProtocolError as e:
        raise RegionError(f"{path} is not {what} ({e}): copy it anew from where it was made") from e
