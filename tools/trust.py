"""What a command trusts: a wide-area genesis, and maybe a newer header; options and reading."""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

from ledger.genesis import WideGenesis
from ledger.light.verify import Clock
from ledger.proof import Pin
from ledger.protocol.errors import ProtocolError
from tools.errors import CommandError
from tools.options import named_path

_MOST_GENESIS_BYTES = 16 << 20
_DAY_S = 86_400


@dataclass(frozen=True)
class Trust:
    """Where belief begins; ``clock`` is None where no trusting period is asked for."""

    genesis: WideGenesis
    pin: Pin | None
    clock: Clock | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--trust",
        type=named_path,
        required=True,
        metavar="GENESIS",
        help="file with the genesis of the wide-area chain that you trust",
    )
    parser.add_argument(
        "--trusted-height", type=int, metavar="H", help="begin at this header instead"
    )
    parser.add_argument("--trusted-hash", metavar="HEX", help="the hash of that header")
    parser.add_argument(
        "--trusting-period",
        type=float,
        metavar="DAYS",
        help="refuse what goes on from something trusted that is older than this",
    )


def load(options: argparse.Namespace) -> Trust:
    """Read what the options name; raises CommandError."""
    genesis = load_genesis(options.trust)
    if not genesis.validators:
        raise CommandError(
            f"{options.trust} names no validators: nodes of such a chain keep it for themselves,"
            " and `gridwitness audit` is what checks it"
        )
    return Trust(genesis, _pin(options), _clock(options.trusting_period))


def load_genesis(path: Path) -> WideGenesis:
    """Read a wide-area genesis; raises CommandError."""
    try:
        with path.open("rb") as file:
            return WideGenesis.decode(file.read(_MOST_GENESIS_BYTES))
    except OSError as e:
        raise CommandError(f"{path} cannot be read: {e.strerror}") from e
    except ProtocolError as e:
        raise CommandError(f"{path} is not the genesis of a wide-area chain ({e})") from e


def _pin(options: argparse.Namespace) -> Pin | None:
    height, text = options.trusted_height, options.trusted_hash
    if height is None and text is None:
        return None
    if height is None or text is None:
        raise CommandError("--trusted-height and --trusted-hash go together")
    if not 1 <= height < 1 << 63:
        raise CommandError(f"--trusted-height {height}: heights begin at 1")
    return height, hex_bytes(text, 32, "--trusted-hash")


def _clock(days: float | None) -> Clock | None:
    if days is None:
        return None
    if not 0 < days <= 36_500:
        raise CommandError(f"--trusting-period {days}: give days, more than 0")
    return Clock(int(time.time()), int(days * _DAY_S))


def hex_bytes(text: str, size: int, name: str) -> bytes:
    """Give the bytes of an option in hex; raises CommandError."""
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != size:
        raise CommandError(f"{name} {text}: give {2 * size} hex digits")
    return value
