"""The evaluation's clusters: votes counted as the chain does, on either interpreter alike."""

import subprocess
import sys
from binascii import hexlify
from hashlib import sha256
from pathlib import Path

import pytest

from hil import micropython
from hil.clusters import split_clusters
from hil.enrich import FREQUENCY, VOLTAGE, Round, Sample, samples
from hil.neighbourhood import Neighbourhood, Settled, Shown, address_of
from hil.traces import sample_day
from ledger.protocol import cbor, committee, quantities, records, tally

ROOT = Path(__file__).resolve().parents[2]
PROBE = ROOT / "tests" / "firmware" / "meter" / "vote_probe.py"
CODES = {row.name: row.code for row in quantities.TABLE}
ROUNDS = 60
FIRST = 1020


@pytest.fixture(scope="module")
def day() -> list[Round]:
    return [row for row in samples(sample_day(), 3) if FIRST <= row.index < FIRST + ROUNDS]


@pytest.fixture(scope="module")
def names() -> tuple[str, ...]:
    return split_clusters(sample_day().meters)[0].meters


def play(
    cluster: Neighbourhood, day: list[Round], shown: dict[str, Shown] | None = None
) -> list[Settled]:
    found = []
    for row in day:
        measured = {name: row.measured.get(name) for name in cluster.names}
        found += cluster.play(row.index, row.time_s, measured | (shown or {}))
    return found


def test_honest_readings_are_accepted_in_their_round(day, names):
    settled = play(Neighbourhood(names, 60), day)
    assert len(settled) == len(day) * len(names)
    assert {one.outcome for one in settled} == {tally.ACCEPTED}
    assert {one.seats for one in settled} == {len(names) - 1}


def test_without_a_majority_of_the_seats_drawn_a_reading_ends_unconfirmed(day, names):
    cluster = Neighbourhood(names, 60, open_rounds=3)
    present = names[: len(names) // 2]  # of those drawn for each of them, less than half
    found = []
    for row in day[:10]:
        shown = {name: row.measured[name] for name in present}
        found += cluster.play(row.index, row.time_s, shown)
    assert {one.outcome for one in found} == {tally.UNCONFIRMED}
    assert len(found) == 7 * len(present)  # open for three rounds after their own


def test_reading_from_the_future_waits_for_its_round(day, names):
    cluster = Neighbourhood(names, 60)
    liar = names[3]
    found = []
    for row in day[:20]:
        shown: dict[str, Shown | Sample | None] = dict(row.measured)
        shown[liar] = Shown(row.measured[liar], 5, false=True)
        before = len(found)
        found += [
            one
            for one in cluster.play(row.index, row.time_s, {name: shown[name] for name in names})
            if one.false
        ]
        if row.index < FIRST + 5:
            assert len(found) == before
    assert found
    assert found[0].outcome == tally.REJECTED


def test_committee_is_the_one_of_the_chain(day):
    names = [meter.name for meter in sample_day().meters]
    cluster = Neighbourhood(names, 60, seats=5, seed=b"s" * 32)
    meter = address_of(names[0])
    others = [address_of(name) for name in names[1:]]
    time_s = day[0].time_s
    settled = [
        one
        for one in cluster.play(0, time_s, {name: day[0].measured[name] for name in names})
        if one.meter == names[0]
    ]
    drawn = committee.draw(b"s" * 32, time_s // 60 // 32, meter, others, 5)
    assert settled[0].seats == len(drawn) == 5
    assert len(settled[0].verdicts) == 5


def test_conspirators_accept_each_other_and_nobody_else(day, names):
    gang = names[: len(names) // 2 + 1]  # the others of them are a majority of a member's seats
    cluster = Neighbourhood(names, 60)
    play(cluster, day[:35])
    cluster.conspire(gang)
    found = []
    for row in day[35:40]:
        shown: dict[str, Shown | Sample | None] = {}
        for name in names:
            sample = dict(row.measured[name])
            if name in (gang[0], names[-1]):
                sample |= {FREQUENCY: sample[FREQUENCY] + 90, VOLTAGE: sample[VOLTAGE] // 2}
            shown[name] = sample
        found += cluster.play(row.index, row.time_s, shown)
    assert {one.outcome for one in found if one.meter in gang} == {tally.ACCEPTED}
    assert {one.outcome for one in found if one.meter == names[-1]} == {tally.REJECTED}


def test_micropython_votes_as_cpython_does(day, names):
    """The same rounds, honest ones and a liar's, give the same ballots and the same memory."""
    try:
        program = micropython.interpreter()
    except micropython.InterpreterNotFoundError as error:
        pytest.skip(str(error))
    others = [address_of(name) for name in names[1:]]
    lines = [cbor.dumps([60, others])]
    previous = dict.fromkeys(names, records.NO_DIGEST)
    for number, row in enumerate(day, start=1):
        made = {}
        for name in names:
            values = {CODES[key]: value for key, value in row.measured[name].items()}
            if name == names[2] and number > 40:
                values[quantities.VOLTAGE] = values[quantities.VOLTAGE] * 106 // 100
            where = (bytes(8), 1, number, row.time_s, 60, 0, 0, previous[name])
            payload = records.Reading(*where, sorted(values.items())).payload()
            previous[name] = sha256(name.encode() + payload).digest()
            made[name] = payload
        rest = [[address_of(name), previous[name], made[name]] for name in names[1:]]
        lines.append(cbor.dumps([made[names[0]], rest]))
    given = b"\n".join(hexlify(line) for line in lines) + b"\n"
    outputs = []
    for command in ([program, "-X", "heapsize=4m"], [sys.executable]):
        environment = micropython.environment(ROOT, base={"PYTHONPATH": str(ROOT)})
        done = subprocess.run(
            [*command, str(PROBE)],
            input=given,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            check=True,
            timeout=100,
        )
        outputs.append(done.stdout.split())
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == ROUNDS + 1
    verdicts = {
        verdict
        for line in outputs[0][:-1]
        for _, verdict in records.decode(bytes.fromhex(line.decode())).verdicts
    }
    assert records.ACCEPT in verdicts
    assert any(records.is_reject(verdict) for verdict in verdicts)
