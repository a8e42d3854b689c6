"""Faults and attacks that a session plays: what is tried, and what a try counts.

A fault may change a sample on its way into a meter (the firmware then signs a falsehood honestly)
or act on the broker as an outsider. Whether it was stopped is read from the ledger afterwards
(``hil.report``), not from what the fault believes.
"""

from collections.abc import Collection
from hashlib import sha256
from typing import Protocol

from hil.enrich import ACTIVE_POWER, CURRENT, REACTIVE_POWER, VOLTAGE, Sample
from ledger.keys import Signer
from ledger.protocol import quantities, records, topics
from ledger.protocol.cose import Envelope, join


class Scene(Protocol):
    """What a fault can see and reach while a session runs."""

    @property
    def chain(self) -> bytes:
        """Give the region's id."""

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish on the broker."""

    def captured(self, meter: str) -> list[Envelope]:
        """Give the readings that a meter published so far, oldest first."""

    def topic(self, meter: str) -> str:
        """Give the topic of a meter's readings."""


class Fault:
    """The interface of all faults; the defaults do nothing. Rounds are counted from 0.

    ``meter`` is whom it strikes. ``false_rounds`` are those in which a meter was made to sign a
    falsehood. ``tried`` holds the digests of records that an outsider published; the chain may
    hold each of them ``may_stand`` times and no more.
    """

    name = ""
    sentence = ""
    may_stand = 0

    def __init__(self, meter: str) -> None:
        self.meter = meter
        self.attempts = 0
        self.tried: list[bytes] = []
        self.false_rounds: set[int] = set()

    def change(self, index: int, sample: Sample) -> Sample:  # noqa: ARG002 - for subclasses
        """Give the sample that the meter gets in a round."""
        return sample

    def act(self, index: int, scene: Scene) -> None:
        """Do something on the broker in the middle of a round."""


class ScaledVoltage(Fault):
    """The meter's voltage input is scaled from a round on."""

    name = "voltage scaled"

    def __init__(self, meter: str, first: int, permille: int) -> None:
        super().__init__(meter)
        self.first, self.permille = first, permille
        self.sentence = f"{meter} signs its voltage times {permille / 1000:g} from then on"

    def change(self, index: int, sample: Sample) -> Sample:
        """Scale the voltage."""
        if index < self.first or VOLTAGE not in sample:
            return sample
        self.attempts += 1
        self.false_rounds.add(index)
        return {**sample, VOLTAGE: sample[VOLTAGE] * self.permille // 1000}


class OldValues(Fault):
    """The meter's input is what it measured some rounds ago: newly signed, old in content."""

    name = "old values newly signed"

    def __init__(self, meter: str, first: int, count: int, age: int) -> None:
        super().__init__(meter)
        self.first, self.count, self.age = first, count, age
        self.sentence = f"{meter} signs for {count} rounds what it measured {age} rounds before"
        self._history: dict[int, Sample] = {}

    def change(self, index: int, sample: Sample) -> Sample:
        """Give an old sample in the rounds of the attack."""
        self._history[index] = sample
        self._history.pop(index - self.age - 1, None)
        old = self._history.get(index - self.age)
        if old is None or not self.first <= index < self.first + self.count:
            return sample
        self.attempts += 1
        self.false_rounds.add(index)
        return old


class LostInput(Fault):
    """The meter's voltage input is dead for some rounds: it shows no voltage and no load."""

    name = "input lost"

    def __init__(self, meter: str, first: int, count: int) -> None:
        super().__init__(meter)
        self.first, self.count = first, count
        self.sentence = f"{meter} signs for {count} rounds that it has neither voltage nor load"

    def change(self, index: int, sample: Sample) -> Sample:
        """Drop voltage, current and powers to zero in the rounds of the attack."""
        if not self.first <= index < self.first + self.count:
            return sample
        self.attempts += 1
        self.false_rounds.add(index)
        dead = (VOLTAGE, CURRENT, ACTIVE_POWER, REACTIVE_POWER)
        return {key: 0 if key in dead else value for key, value in sample.items()}


class Outsider(Fault):
    """Publishes a record of its own making in some rounds, once it has seen one of the meter's."""

    def __init__(self, meter: str, rounds: Collection[int]) -> None:
        super().__init__(meter)
        self._when = frozenset(rounds)

    def act(self, index: int, scene: Scene) -> None:
        """Make a record of what was captured and publish it."""
        captured = scene.captured(self.meter)
        if index not in self._when or not captured:
            return
        envelope = self._make(index, captured)
        self.attempts += 1
        self.tried.append(envelope.digest)
        scene.publish(self._topic(scene), envelope.raw)

    def _make(self, index: int, captured: list[Envelope]) -> Envelope:
        raise NotImplementedError

    def _topic(self, scene: Scene) -> str:
        return scene.topic(self.meter)


class SameBytes(Outsider):
    """An old reading of the meter is published again, byte for byte."""

    name = "old reading, same bytes"
    may_stand = 1

    def __init__(self, meter: str, rounds: Collection[int]) -> None:
        super().__init__(meter, rounds)
        self.sentence = f"an outsider publishes an old reading of {meter} again"

    def _make(self, index: int, captured: list[Envelope]) -> Envelope:  # noqa: ARG002 - as Outsider
        return captured[0]


class ForgedSignature(Outsider):
    """A reading in the meter's name with more energy and the signature of another reading."""

    name = "forged signature"

    def __init__(self, meter: str, rounds: Collection[int]) -> None:
        super().__init__(meter, rounds)
        self.sentence = f"a stranger changes a reading of {meter} and keeps its signature"

    def _make(self, index: int, captured: list[Envelope]) -> Envelope:
        newest = captured[-1]
        reading = records.decode(newest.payload)
        assert isinstance(reading, records.Reading)
        reading.seq += 1000 + index  # a slot that the meter has not filled
        reading.values = [
            (code, value + 5_000_000 if code == quantities.ENERGY_IMPORT else value)
            for code, value in reading.values
        ]
        return join(newest.kid, reading.payload(), newest.signature)


class Stranger(Outsider):
    """A key that is no member's signs a plausible reading, that of a meter ``like`` it."""

    name = "unregistered key"

    def __init__(self, like: str, cluster: str, rounds: Collection[int], seed: int) -> None:
        super().__init__(like, rounds)
        self._cluster = cluster
        self._signer = Signer(sha256(b"stranger" + seed.to_bytes(8, "big")).digest())
        self.sentence = "a key that nobody registered signs a plausible reading"

    def _make(self, index: int, captured: list[Envelope]) -> Envelope:  # noqa: ARG002 - as Outsider
        return self._signer.seal(captured[-1].payload)

    def _topic(self, scene: Scene) -> str:
        return topics.meter(scene.chain, self._cluster, self._signer.address, topics.READING)
