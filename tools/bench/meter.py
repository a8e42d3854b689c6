"""The meter's program on MicroPython with a small heap, and its P-256 code.

One real meter with eleven neighbours in its cluster, a real broker and the gateway's own program.
The neighbours' readings and ballots are signed beforehand and published by the benchmark; the
meter measures, judges, votes, follows heads and gets receipts. Afterwards its heap is looked at.
"""

import asyncio
import contextlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from firmware.meter import rig_messages
from gateway import provision
from hil import micropython
from hil.broker import Broker, BrokerError
from hil.meters import MeterError, ProcessMeter
from hil.ports import HOST
from ledger.protocol import p256, quantities, records
from ledger.region import RegionDirectory
from tools.bench import load
from tools.bench.figure import BenchError, Figure, Skipped, floor
from tools.bench.gateway import gateway_process
from tools.bench.publisher import Publisher

HEAP = "400k"
# 60 KB on a board of 32 bits; a 64-bit interpreter's objects are twice as large
LEAST_FREE_KB = 120
NEIGHBOURS = 11
_CLUSTER = "c0"
_ROUND_LIMIT_S = 20
_START_LIMIT_S = 30
_TELLS_EVERY_S = 2.0
_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[1]


def measure(*, rounds: int, curve_runs: int) -> Iterator[Figure]:
    """Run a meter for ``rounds`` rounds; raises Skipped, BenchError."""
    try:
        program = micropython.interpreter()
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            free = asyncio.run(_run(Path(folder), rounds))
    except (micropython.InterpreterNotFoundError, BrokerError) as e:
        raise Skipped(str(e)) from None
    except MeterError as e:
        raise BenchError(str(e)) from None
    name = f"meter: heap left of {HEAP}, {NEIGHBOURS} neighbours"
    yield floor(name, free / 1000, "KB", LEAST_FREE_KB)
    yield from _curve(program, curve_runs)


def _curve(program: str, runs: int) -> Iterator[Figure]:
    """Time sign and verify on MicroPython, beside the same on this Python."""
    command = [program, str(_HERE / "curve_probe.py"), str(runs)]
    environment = micropython.environment(_ROOT)
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    words = done.stdout.split()
    if done.returncode != 0 or len(words) != 4:
        raise BenchError(f"the P-256 code does not run: {done.stderr[-1000:]}")
    secret, digest = bytes(range(1, 33)), bytes(32)
    key, signature = p256.PublicKey(p256.public_key(secret)), p256.sign(secret, digest)
    peers = {
        "sign": _host_ms(lambda: p256.sign(secret, digest)),
        "verify": _host_ms(lambda: key.verify(digest, signature)),
    }
    for what, microseconds in (words[:2], words[2:]):
        yield Figure(
            name=f"meter: {what}, unix port of MicroPython",
            value=int(microseconds) / 1000,
            unit="ms",
            peer=peers[what],
            against=f"{p256.BACKEND}, CPython",
        )


def _host_ms(action: Callable[[], object], times: int = 500) -> float:
    start = time.process_time()
    for _ in range(times):
        action()
    return (time.process_time() - start) * 1000 / times


async def _run(folder: Path, rounds: int) -> int:
    """Give the fewest bytes of heap that the meter told to be left after the last round."""
    rig = _Rig(folder)
    keys = load.meter_keys(NEIGHBOURS)
    async with contextlib.AsyncExitStack() as stack:
        broker = stack.enter_context(Broker(folder / "broker"))
        stack.push_async_callback(rig.meter.stop)
        await rig.meter.start(HEAP)
        await rig.meter.enrolled(_START_LIMIT_S)
        directory = RegionDirectory(folder / "region")
        genesis = provision.create_region(
            directory,
            "bench",
            load.PARAMETERS,
            members=[
                (key, _CLUSTER) for key in (rig.meter.public_key, *(k.public_key for k in keys))
            ],
            created=load.START,
            settings={
                "mqtt.host": HOST,
                "mqtt.port": broker.port,
                "rounds.pace": "trace",
                "rounds.timeout_s": float(_ROUND_LIMIT_S),
            },
        )
        stack.enter_context(gateway_process(folder, directory))
        settings = provision.meter_settings(genesis, rig.meter.address, HOST, broker.port)
        rig.meter.send(rig_messages.provision(settings.encode()))
        await rig.until("connect", lambda: rig.online)
        publisher = Publisher(broker.port, genesis.chain)
        stack.callback(publisher.close)
        fleet = load.Fleet(keys, genesis, cluster=_CLUSTER)
        for index in range(rounds):
            await _play(rig, publisher, fleet, index)
        accepts, rejects, _ = rig.verdicts
        if accepts + rejects != NEIGHBOURS:
            raise BenchError(f"the meter does not judge all its neighbours: {rig.verdicts}")
        return await rig.heap_left()


async def _play(rig: "_Rig", publisher: Publisher, fleet: load.Fleet, index: int) -> None:
    """Play one round and wait until the meter has voted in it and holds its head."""
    round_ = load.FIRST_ROUND + index
    values = [
        (quantities.VOLTAGE, 229_000 + index % 7 * 100),
        (quantities.ACTIVE_POWER, 600_000),
        (quantities.REACTIVE_POWER, 180_000),
        (quantities.FREQUENCY, 49_980 + index % 40),
        (quantities.ENERGY_IMPORT, 5_000_000_000 + index * 10_000_000),
    ]
    sample = rig_messages.sample(
        load.START + index * load.ROUND_S,
        load.ROUND_S,
        1000 * _ROUND_LIMIT_S,
        records.SIMULATED_INPUT,
        values,
    )
    rig.meter.send(sample)
    for message in fleet.round(index).messages():
        publisher.publish(message)
    await rig.until("vote", lambda: rig.voted >= round_)
    await rig.until("adopt the head", lambda: rig.head >= round_)


class _Rig:
    """One meter's rig: what the meter said, and its heap."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "meter" / "log.txt"
        self.meter = ProcessMeter(
            "bench", folder / "meter", self._on_message, _HERE / "heap_probe.py"
        )
        self.online = False
        self.voted = -1
        self.head = -1
        self.verdicts: list[int] = []
        self.events: list[str] = []
        self._changed = asyncio.Event()

    def _on_message(self, _meter: ProcessMeter, message: list[Any]) -> None:
        if message[0] == rig_messages.LINK:
            self.online = message[1]
        elif message[0] == rig_messages.VOTED:
            self.voted, self.verdicts = message[1], message[2:]
        elif message[0] == rig_messages.HEAD:
            self.head = message[2]
        elif message[0] == rig_messages.EVENT:
            self.events.append(message[1])
        self._changed.set()

    async def until(self, what: str, done: Callable[[], bool]) -> None:
        """Wait for something that the meter tells; raises BenchError."""
        try:
            async with asyncio.timeout(_ROUND_LIMIT_S + _START_LIMIT_S):
                while not done():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            log = self._log.read_text("utf-8", "replace")[-1000:]
            raise BenchError(f"the meter does not {what}: {self.events} {log}") from None

    async def heap_left(self) -> int:
        """Give the fewest free bytes among what the meter tells from now on, over two tellings."""
        told = len(self._told())
        deadline = time.monotonic() + 10 * _TELLS_EVERY_S
        while len(self._told()) < told + 2:
            if time.monotonic() > deadline:
                raise BenchError("the meter does not tell its heap any more")
            await asyncio.sleep(0.1)
        return min(self._told()[told:])

    def _told(self) -> list[int]:
        lines = self._log.read_text("utf-8", "replace").splitlines()
        words = [line.split() for line in lines if line.startswith("heap ")]
        return [int(word[1]) for word in words if len(word) == 3]
