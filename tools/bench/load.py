"""Signed records of a made-up region, the same on every run: what the benchmarks feed.

Meters stand in clusters of eight, so a committee has seven seats. Every meter sends a reading with
five quantities and a ballot that accepts its seven neighbours' readings, every round. Ballots name
the genesis as the newest head that the voter holds, which a meter may do until it names another;
so they can be signed before any head exists.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from gateway.queue import Message
from ledger.genesis import Parameters, RegionGenesis
from ledger.keys import Signer
from ledger.protocol import quantities, records, rounds, topics
from ledger.protocol.cose import Envelope

CLUSTER = 8
ROUND_S = 60
START = 1_767_225_600  # 2026-01-01
FIRST_ROUND = rounds.round_of(START, ROUND_S)
PARAMETERS = Parameters(round_s=ROUND_S)


def signer(name: str) -> Signer:
    """Give the same key for the same name."""
    return Signer(sha256(b"bench " + name.encode()).digest())


def cluster_of(number: int) -> str:
    """Give the cluster of a meter."""
    return f"c{number // CLUSTER}"


def reading(chain: bytes, number: int, index: int, previous: bytes) -> records.Reading:
    """Give a reading with five quantities of the size of a house's; ``index`` counts rounds."""
    power_w = 200 + number * 37 % 3000
    values = [
        (quantities.VOLTAGE, 228_000 + number % 4000),
        (quantities.ACTIVE_POWER, power_w * 1000),
        (quantities.REACTIVE_POWER, power_w * 300),
        (quantities.FREQUENCY, 49_980 + index % 40),
        # some 8 MWh on the register, and what the power adds in a round
        (quantities.ENERGY_IMPORT, 8_000_000_000 + index * power_w * 1000 * ROUND_S // 3600),
    ]
    time = START + index * ROUND_S
    return records.Reading(chain, 1, 1 + index, time, ROUND_S, 0, 0, previous, values)


@dataclass(frozen=True)
class Round:
    """One round's messages: (topic, envelope)."""

    readings: list[tuple[str, Envelope]]
    ballots: list[tuple[str, Envelope]]

    def messages(self) -> Iterator[Message]:
        """Give readings, then ballots, as they come by MQTT."""
        for topic, envelope in (*self.readings, *self.ballots):
            yield Message(topic, envelope.raw)


class Fleet:
    """The meters of one region, which sign rounds in order; ``cluster`` puts all in one."""

    def __init__(
        self, keys: list[Signer], genesis: RegionGenesis, cluster: str | None = None
    ) -> None:
        self.genesis = genesis
        self._cluster = cluster
        self._keys = keys
        self._previous = [records.NO_DIGEST] * len(keys)

    def round(self, index: int) -> Round:
        """Sign the readings and ballots of round ``index`` (0, 1, …)."""
        readings = []
        for number, key in enumerate(self._keys):
            record = reading(self.genesis.chain, number, index, self._previous[number])
            envelope = key.seal(record.payload())
            self._previous[number] = envelope.digest
            readings.append((self._topic(number, topics.READING), envelope))
        return Round(readings, list(self._ballots(index, [e for _, e in readings])))

    def _ballots(self, index: int, readings: list[Envelope]) -> Iterator[tuple[str, Envelope]]:
        chain, parent = self.genesis.chain, self.genesis.digest
        for number, key in enumerate(self._keys):
            start, size = number - number % CLUSTER, CLUSTER
            if self._cluster is not None:
                start, size = 0, len(readings)
            others = [e for e in readings[start : start + size] if e.kid != key.address]
            verdicts = [(e.digest, records.ACCEPT) for e in others]
            ballot = records.Ballot(chain, FIRST_ROUND + index, parent, verdicts)
            yield self._topic(number, topics.BALLOT), key.seal(ballot.payload())

    def _topic(self, number: int, kind: str) -> str:
        key = self._keys[number]
        cluster = self._cluster or cluster_of(number)
        return topics.meter(self.genesis.chain, cluster, key.address, kind)


def meter_keys(meters: int) -> list[Signer]:
    """Give the meters' keys."""
    return [signer(f"meter {number}") for number in range(meters)]


def members(keys: Iterable[Signer]) -> list[tuple[bytes, str]]:
    """Give the members for a genesis."""
    return [(key.public_key, cluster_of(number)) for number, key in enumerate(keys)]


def genesis_of(keys: list[Signer]) -> RegionGenesis:
    """Give a region's genesis with one operator and the gateway ``gateway_key()``."""
    operators, gateways = (signer("operator").public_key,), (gateway_key().public_key,)
    return RegionGenesis("bench", START, PARAMETERS, operators, 1, gateways, tuple(members(keys)))


def gateway_key() -> Signer:
    """Give the key of the gateway in ``genesis_of``."""
    return signer("gateway")
