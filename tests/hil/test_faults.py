"""What each fault does to samples and on the broker, and what it counts as a try."""

import pytest

from hil import faults
from hil.enrich import ACTIVE_POWER, ENERGY_IMPORT, VOLTAGE
from ledger.keys import Signer
from ledger.protocol import p256, quantities, records, topics
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import BadSignature

CHAIN = b"a region"
METER = Signer(bytes(31) + b"\x07")


def reading(seq: int) -> Envelope:
    values = [(quantities.VOLTAGE, 230_000 + seq), (quantities.ENERGY_IMPORT, 1000 * seq)]
    record = records.Reading(CHAIN, 1, seq, 60 * seq, 60, 0, 0, records.NO_DIGEST, values)
    return METER.seal(record.payload())


class Scene:
    """A broker that keeps what is published; one meter, m1, has published three readings."""

    chain = CHAIN

    def __init__(self, readings: list[Envelope]) -> None:
        self.readings = readings
        self.sent: list[tuple[str, Envelope]] = []

    def publish(self, topic: str, payload: bytes) -> None:
        self.sent.append((topic, Envelope.parse(payload)))

    def captured(self, meter: str) -> list[Envelope]:
        return self.readings if meter == "m1" else []

    def topic(self, meter: str) -> str:
        return f"topic of {meter}"


@pytest.fixture
def scene():
    return Scene([reading(1), reading(2), reading(3)])


def test_voltage_is_scaled_from_its_round_on_and_nothing_else():
    fault = faults.ScaledVoltage("m1", first=2, permille=1080)
    sample = {VOLTAGE: 230_000, ENERGY_IMPORT: 5}
    assert fault.change(1, sample) == sample
    assert fault.change(2, sample) == {VOLTAGE: 248_400, ENERGY_IMPORT: 5}
    assert sample == {VOLTAGE: 230_000, ENERGY_IMPORT: 5}
    assert (fault.attempts, fault.false_rounds) == (1, {2})


def test_lost_input_shows_no_voltage_and_no_load_for_its_rounds():
    fault = faults.LostInput("m1", first=2, count=2)
    sample = {VOLTAGE: 230_000, ACTIVE_POWER: 900, ENERGY_IMPORT: 5}
    dead = {VOLTAGE: 0, ACTIVE_POWER: 0, ENERGY_IMPORT: 5}
    assert [fault.change(i, sample) for i in range(1, 5)] == [sample, dead, dead, sample]
    assert (fault.attempts, fault.false_rounds) == (2, {2, 3})


def test_sample_without_voltage_is_no_try():
    fault = faults.ScaledVoltage("m1", first=0, permille=1080)
    assert fault.change(0, {ENERGY_IMPORT: 5}) == {ENERGY_IMPORT: 5}
    assert (fault.attempts, fault.false_rounds) == (0, set())


def test_old_values_are_those_of_so_many_rounds_before():
    fault = faults.OldValues("m1", first=4, count=2, age=3)
    shown = [fault.change(index, {VOLTAGE: index}) for index in range(8)]
    assert [sample[VOLTAGE] for sample in shown] == [0, 1, 2, 3, 1, 2, 6, 7]
    assert (fault.attempts, fault.false_rounds) == (2, {4, 5})


def test_old_values_of_a_round_without_a_sample_are_no_try():
    fault = faults.OldValues("m1", first=2, count=2, age=2)
    shown = [fault.change(index, {VOLTAGE: index}) for index in (1, 2, 3)]
    assert [sample[VOLTAGE] for sample in shown] == [1, 2, 1]
    assert fault.false_rounds == {3}


def test_same_bytes_are_those_of_the_oldest_reading(scene):
    fault = faults.SameBytes("m1", (3, 5))
    for index in range(6):
        fault.act(index, scene)
    assert [(topic, e.raw) for topic, e in scene.sent] == [
        ("topic of m1", scene.readings[0].raw)
    ] * 2
    assert fault.attempts == 2
    assert fault.tried == [scene.readings[0].digest] * 2
    assert fault.may_stand == 1


def test_forged_reading_has_the_meters_name_other_values_and_no_signature_that_fits(scene):
    fault = faults.ForgedSignature("m1", (4,))
    fault.act(4, scene)
    ((topic, forged),) = scene.sent
    assert (topic, forged.kid) == ("topic of m1", METER.address)
    record, original = records.decode(forged.payload), records.decode(scene.readings[2].payload)
    assert record.seq > original.seq
    assert record.value(quantities.ENERGY_IMPORT) == 5_003_000
    assert record.value(quantities.VOLTAGE) == original.value(quantities.VOLTAGE)
    with pytest.raises(BadSignature):
        forged.verify(p256.PublicKey(METER.public_key))
    assert fault.tried == [forged.digest]
    assert forged.digest not in {e.digest for e in scene.readings}


def test_stranger_signs_truly_with_a_key_of_its_own_on_its_own_topic(scene):
    fault = faults.Stranger("m1", "c1", (0,), seed=1)
    fault.act(0, scene)
    ((topic, signed),) = scene.sent
    assert signed.kid != METER.address
    assert topics.split(topic) == ("c1", signed.kid, topics.READING)
    assert signed.payload == scene.readings[2].payload
    assert fault.tried == [signed.digest]
    faults.Stranger("m1", "c1", (0,), seed=1).act(0, scene)
    faults.Stranger("m1", "c1", (0,), seed=2).act(0, scene)
    assert scene.sent[1][1].kid == signed.kid != scene.sent[2][1].kid


@pytest.mark.parametrize(
    "fault",
    [
        faults.SameBytes("m2", (0,)),
        faults.ForgedSignature("m2", (0,)),
        faults.Stranger("m2", "c1", (0,), seed=1),
    ],
)
def test_outsider_that_has_seen_nothing_yet_does_not_try(scene, fault):
    fault.act(0, scene)
    assert (scene.sent, fault.attempts, fault.tried) == ([], 0, [])
