"""How much of a CPU the gateway needs for a record, from MQTT to the committed block.

A real broker, the gateway's own program with a region of its own, and a publisher in a third
process, all on this machine. Every record is signed beforehand. What counts is the CPU time of the
gateway's process alone, between the first publish and the last receipt, against what openssl needs
for the bare signature check. Afterwards the chain is read: every record must be in it.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway import provision
from hil.broker import Broker, BrokerError
from hil.ports import HOST
from hil.status import read_status
from ledger.protocol import tally
from ledger.protocol.cose import Envelope
from ledger.region import RegionDirectory
from tools.bench import load, peers, publisher
from tools.bench.figure import BenchError, Figure, Skipped, cpu_s, memory_mb

TARGET = 0.40
_START_LIMIT_S = 30
_LIMIT_S = 150
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Run:
    """What one run used: records, wall and CPU seconds, peak memory in MB."""

    records: int
    wall_s: float
    cpu_s: float
    peak_mb: float


def measure(*, meters: int, rounds: int, openssl_s: int) -> Iterator[Figure]:
    """Run a region of ``meters`` for ``rounds`` rounds; raises Skipped, BenchError."""
    before = peers.openssl_verifications(openssl_s)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        used = run(Path(folder), meters, rounds)
    # once before and once after, for the clock of a busy machine changes
    peer = (before + peers.openssl_verifications(openssl_s)) / 2
    yield Figure(
        name="gateway: signature checks, MQTT to block",
        value=used.records / used.cpu_s,
        unit="1/CPU-s",
        peer=peer,
        against="openssl ecdsap256",
        at_least=TARGET,
    )
    yield Figure(name="gateway: records", value=used.records / used.wall_s, unit="1/s")
    yield Figure(name=f"gateway: peak memory, {meters:,} meters", value=used.peak_mb, unit="MB")


def run(folder: Path, meters: int, rounds: int) -> Run:
    """Run a region below ``folder`` and check its chain; raises Skipped, BenchError."""
    keys = load.meter_keys(meters)
    directory = RegionDirectory(folder / "region")
    try:
        broker = Broker(folder / "broker")
    except BrokerError as e:
        raise Skipped(str(e)) from None
    with broker:
        settings = {
            "mqtt.host": HOST,
            "mqtt.port": broker.port,
            "rounds.pace": "trace",
            "rounds.timeout_s": 60.0,
        }
        genesis = provision.create_region(
            directory,
            "bench",
            load.PARAMETERS,
            members=load.members(keys),
            created=load.START,
            settings=settings,
        )
        fleet = load.Fleet(keys, genesis)
        signed = [fleet.round(index) for index in range(rounds)]
        messages = publisher.pack(m for round_ in signed for m in round_.messages())
        command = [sys.executable, "-m", "tools.bench.publisher", "--port", str(broker.port)]
        command += ["--chain", genesis.chain.hex(), "--round", str(load.FIRST_ROUND)]
        command += ["--a-round", str(2 * meters), "--limit", str(20 + meters / 50)]
        with gateway_process(folder, directory) as process:
            used = _drive(folder, process, command, messages, 2 * meters * rounds)
    _check(directory, [e for r in signed for _, e in (*r.readings, *r.ballots)])
    return used


@contextmanager
def gateway_process(
    folder: Path, directory: RegionDirectory
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a gateway with the status file ``status.json``; it has ended afterwards."""
    status, log = folder / "status.json", folder / "gateway.log"
    command = [sys.executable, "-m", "gateway", "--config", str(directory.config)]
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*command, "--status", str(status)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=_ROOT,
        )
    try:
        deadline = time.monotonic() + _START_LIMIT_S
        while not read_status(status).ready:
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError("the gateway is not ready: " + _tail(log))
            time.sleep(0.02)
        yield process
        process.terminate()
        if process.wait(30) != 0:
            raise BenchError("the gateway gave up: " + _tail(log))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _tail(log: Path) -> str:
    return log.read_text("utf-8", "replace")[-2000:]


def _drive(
    folder: Path,
    process: "subprocess.Popen[bytes]",
    command: list[str],
    messages: bytes,
    count: int,
) -> Run:
    """Publish everything and wait until the last block is made and its receipts are out."""
    sender = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_ROOT)
    try:
        cpu = cpu_s(process.pid)
        try:
            out, _ = sender.communicate(messages, timeout=_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise BenchError(f"the rounds did not close in {_LIMIT_S} s") from None
        if sender.returncode != 0:
            raise BenchError("the rounds did not close: " + _tail(folder / "gateway.log"))
        first, last = (float(line.split()[1]) for line in out.splitlines())
        _wait_for_receipts(folder / "status.json")
        used = cpu_s(process.pid) - cpu
        return Run(count, last - first, used, memory_mb(process.pid, "VmHWM"))
    finally:
        if sender.poll() is None:
            sender.kill()
            sender.communicate()


def _wait_for_receipts(status: Path) -> None:
    """Wait until the inbox is empty, which is what the gateway does after the receipts."""
    deadline = time.monotonic() + _START_LIMIT_S
    while json.loads(status.read_text("utf-8"))["inbox"]:
        if time.monotonic() > deadline:
            raise BenchError("the gateway does not empty its inbox")
        time.sleep(0.02)


def _check(directory: RegionDirectory, sent: list[Envelope]) -> None:
    """Raise BenchError unless the chain holds exactly what was sent, and all is accepted."""
    application = directory.open_regional(read_only=True)
    try:
        blocks = application.blocks
        heights = range(1, blocks.height() + 1)
        found = {raw for height in heights for raw in blocks.records_of(height)}
        outcomes = {row[2] for row in blocks.all_results()}
    finally:
        application.close()
    if found != {envelope.raw for envelope in sent}:
        raise BenchError(f"{len(sent)} records were sent, {len(found)} are in the chain")
    if outcomes != {tally.ACCEPTED}:
        raise BenchError(f"not every reading was accepted: outcomes {sorted(outcomes)}")
