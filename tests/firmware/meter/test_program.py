"""The meter's program in a real MicroPython process, over a real broker.

The test is the rig, the gateway and two neighbours.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from firmware.meter import rig_messages as rig
from firmware.meter.storage import Cell
from firmware.meter.voter import Voter
from ledger.protocol import cose, p256, quantities, records, topics
from ledger.protocol.cose import Envelope
from ledger.protocol.messages import encode_members
from tests.broker import Broker, free_port, make_certificates, mosquitto_broker, nats_broker
from tests.firmware.meter import bench

HEAP = "400k"  # about what a board has
FIRST = bench.START_ROUND


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with nats_broker(tmp_path) as running:
        yield running


@pytest.fixture
def air(broker: Broker) -> Iterator[bench.Air]:
    client = bench.Air(broker.port)
    yield client
    client.close()


class Meter:
    """The process under test and what is known of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._make()

    def _make(self) -> None:
        self.process = bench.Process(self._folder, HEAP)
        try:
            self.public_key = self.process.enrolled().public_key
        except BaseException:
            self.process.kill()
            raise
        self.address = cose.address_of(self.public_key)
        self.key = p256.PublicKey(self.public_key)

    def restart(self) -> None:
        self.process.kill()
        self._make()

    def online(self, port: int, **changes: object) -> None:
        self.process.provision(bench.settings(port, **changes))
        self.process.wait(rig.LINK, lambda message: message[1])

    def topic(self, kind: str) -> str:
        return topics.meter(bench.CHAIN, bench.CLUSTER, self.address, kind)

    def record(
        self, air: bench.Air, kind: str, round_: int | None = None
    ) -> tuple[Envelope, records.Reading | records.Ballot]:
        """Give this meter's next published record of a kind, its signature checked.

        With ``round_``, others are passed over: what has no receipt is sent again.
        """
        while True:
            envelope = Envelope.parse(air.hear(self.topic(kind)))
            assert envelope.kid == self.address
            envelope.verify(self.key)
            record = records.decode(envelope.payload)
            own = record.round if kind == topics.BALLOT else record.time // bench.ROUND_S
            if round_ is None or own == round_:
                return envelope, record

    def round(
        self, air: bench.Air, round_: int, *neighbours: bench.Signer
    ) -> tuple[list[Envelope], Envelope, Envelope, records.Ballot]:
        """Go through a round: neighbours' readings, own reading, ballot."""
        theirs = [one.reading(round_) for one in neighbours]
        for envelope in theirs:
            air.say_reading(envelope)
        self.process.sample(round_)
        reading, _ = self.record(air, topics.READING, round_)
        envelope, ballot = self.record(air, topics.BALLOT, round_)
        assert isinstance(ballot, records.Ballot)
        return theirs, reading, envelope, ballot


@pytest.fixture
def meter(tmp_path: Path) -> Iterator[Meter]:
    running = Meter(tmp_path)
    yield running
    running.process.kill()


@pytest.fixture
def neighbours() -> tuple[bench.Signer, bench.Signer]:
    return bench.Signer(bench.ALICE), bench.Signer(bench.BOB)


Pair = tuple[bench.Signer, bench.Signer]


# --------------------------------------------------------------------------- a round


def test_reading_ballot_and_receipt_of_a_round(
    broker: Broker, air: bench.Air, meter: Meter, neighbours: Pair
) -> None:
    meter.online(broker.port)
    theirs, own, ballot_envelope, ballot = meter.round(air, FIRST, *neighbours)
    reading = records.decode(own.payload)
    assert (reading.boot, reading.seq, reading.time) == (1, 1, FIRST * bench.ROUND_S)
    assert reading.values == bench.values(FIRST)
    assert (ballot.round, ballot.parent) == (FIRST, bench.GENESIS)
    assert dict(ballot.verdicts) == {one.digest: records.ACCEPT for one in theirs}
    assert meter.process.wait(rig.VOTED) == [rig.VOTED, FIRST, 2, 0, 0]

    digests = [own.digest, theirs[0].digest, ballot_envelope.digest]
    head = bench.Blocks().close(FIRST, digests)
    wanted = [own.digest, ballot_envelope.digest]
    air.say(meter.topic(topics.RECEIPT), bench.receipt(head, digests, wanted))
    assert meter.process.wait(rig.HEAD) == [rig.HEAD, 1, FIRST]
    assert meter.process.wait(rig.UNRECEIPTED) == [rig.UNRECEIPTED, 0]


def test_false_reading_is_rejected_with_its_reason(
    broker: Broker, air: bench.Air, meter: Meter, neighbours: Pair
) -> None:
    meter.online(broker.port)
    alice, bob = neighbours
    for round_ in range(FIRST, FIRST + 3):
        meter.round(air, round_, alice, bob)
    last = FIRST + 3
    scaled = [
        (code, value * 94 // 100 if code == quantities.VOLTAGE else value)
        for code, value in bench.values(last)
    ]
    bad, good = alice.reading(last, values=scaled), bob.reading(last)
    for envelope in (bad, good):
        air.say_reading(envelope)
    meter.process.sample(last)
    _, ballot = meter.record(air, topics.BALLOT, last)
    expected = {bad.digest: records.REJECT_VOLTAGE, good.digest: records.ACCEPT}
    assert dict(ballot.verdicts) == expected


def test_ballot_leaves_in_time_without_the_neighbours(
    broker: Broker, air: bench.Air, meter: Meter
) -> None:
    meter.online(broker.port)
    meter.process.sample(FIRST, round_ms=500)
    _, ballot = meter.record(air, topics.BALLOT)
    assert (ballot.round, ballot.verdicts) == (FIRST, [])


def test_bad_signature_gets_no_verdict(
    broker: Broker, air: bench.Air, meter: Meter, neighbours: Pair
) -> None:
    meter.online(broker.port)
    alice, bob = neighbours
    good, other = alice.reading(FIRST), bob.reading(FIRST)
    payload = records.Reading.payload(records.decode(other.payload))
    forged = cose.join(bench.BOB.address, payload, good.signature)
    stranger = bench.Signer(bench.STRANGER).reading(FIRST)
    for envelope in (good, forged, stranger):
        air.say_reading(envelope)
    meter.process.sample(FIRST, round_ms=1500)
    _, ballot = meter.record(air, topics.BALLOT)
    assert ballot.verdicts == [(good.digest, records.ACCEPT)]


def test_late_reading_is_in_the_next_ballot(
    broker: Broker, air: bench.Air, meter: Meter, neighbours: Pair
) -> None:
    meter.online(broker.port)
    alice, bob = neighbours
    meter.round(air, FIRST, alice, bob)
    late = alice.reading(FIRST + 1)
    air.say_reading(bob.reading(FIRST + 1))
    meter.process.sample(FIRST + 1, round_ms=200)
    _, ballot = meter.record(air, topics.BALLOT, FIRST + 1)
    assert late.digest not in dict(ballot.verdicts)
    air.say_reading(late)
    *_, ballot = meter.round(air, FIRST + 2, alice, bob)
    assert dict(ballot.verdicts)[late.digest] == records.ACCEPT


# ----------------------------------------------------------------------------- heads


def test_ballot_names_the_newest_head_and_a_restart_does_not_forget_it(
    broker: Broker, air: bench.Air, meter: Meter, neighbours: Pair
) -> None:
    meter.online(broker.port)
    blocks = bench.Blocks()
    air.say(topics.head(bench.CHAIN), blocks.close(FIRST - 1, [b"d"]).raw, retain=True)
    assert meter.process.wait(rig.HEAD) == [rig.HEAD, 1, FIRST - 1]
    *_, ballot = meter.round(air, FIRST, *neighbours)
    assert ballot.parent == blocks.previous

    rival = bench.Blocks()
    rival.close(FIRST - 1, [b"other"])
    air.say(topics.head(bench.CHAIN), rival.close(FIRST, [b"d"]).raw, retain=True)
    meter.process.wait(rig.EVENT, lambda message: "contradicts" in message[1])
    meter.restart()
    meter.process.wait(rig.EVENT, lambda message: "contradicts" in message[1])
    meter.process.sample(FIRST + 1, round_ms=500)
    _, ballot = meter.record(air, topics.BALLOT, FIRST + 1)
    assert ballot.parent == blocks.previous


def test_receipt_with_a_bridge_brings_a_meter_up_to_date(
    broker: Broker, air: bench.Air, meter: Meter, neighbours: Pair
) -> None:
    meter.online(broker.port)
    blocks = bench.Blocks()
    air.say(topics.head(bench.CHAIN), blocks.close(1, [b"d"]).raw)
    meter.process.wait(rig.HEAD)
    _, own, *_ = meter.round(air, FIRST, *neighbours)
    for round_ in range(2, 6):
        blocks.close(round_, [b"d"])
    head = blocks.close(FIRST, [own.digest])
    lone = bench.receipt(head, [own.digest], [own.digest])
    air.say(meter.topic(topics.RECEIPT), lone)
    meter.process.wait(rig.EVENT, lambda message: "BadProof" in message[1])
    bridged = bench.receipt(head, [own.digest], [own.digest], blocks.bridge(1))
    air.say(meter.topic(topics.RECEIPT), bridged)
    assert meter.process.wait(rig.HEAD) == [rig.HEAD, 6, FIRST]
    assert meter.process.wait(rig.UNRECEIPTED) == [rig.UNRECEIPTED, 0]


# --------------------------------------------------------------------------- members


def test_member_that_operators_let_in_is_judged(
    broker: Broker, air: bench.Air, meter: Meter, neighbours: Pair
) -> None:
    meter.online(broker.port, neighbours=[bench.ALICE])
    alice, bob = neighbours
    change = records.RegistryChange(
        bench.CHAIN, 1, records.JOIN, bench.BOB.public_key, bench.CLUSTER
    )
    message = encode_members([bench.OPERATOR.seal(change.payload()).raw])
    air.say(topics.members(bench.CHAIN, bench.CLUSTER), message, retain=True)
    meter.process.wait(rig.EVENT, lambda message: "2 neighbours" in message[1])
    theirs, *_, ballot = meter.round(air, FIRST, alice, bob)
    assert dict(ballot.verdicts) == {one.digest: records.ACCEPT for one in theirs}


# -------------------------------------------------------------------------- restarts


def test_killed_meter_goes_on_and_sends_again_what_has_no_receipt(
    broker: Broker, air: bench.Air, meter: Meter, neighbours: Pair
) -> None:
    meter.online(broker.port)
    own = [meter.round(air, round_, *neighbours)[1] for round_ in (FIRST, FIRST + 1)]
    meter.restart()
    meter.process.wait(rig.LINK, lambda message: message[1])  # its settings are on its flash
    again = [meter.record(air, topics.READING)[0].raw for _ in own]
    assert again == [one.raw for one in own]
    # the round that had its ballot and reading gets no second one, the next goes on
    meter.process.sample(FIRST + 1)
    meter.process.wait(rig.EVENT, lambda message: "second sample" in message[1])
    _, reading, _, ballot = meter.round(air, FIRST + 2, *neighbours)
    decoded = records.decode(reading.payload)
    assert (decoded.boot, decoded.seq, decoded.previous) == (2, 1, own[-1].digest)
    assert ballot.round == FIRST + 2


def test_broker_that_restarts_is_found_again(
    broker: Broker, air: bench.Air, meter: Meter, neighbours: Pair
) -> None:
    meter.online(broker.port)
    meter.round(air, FIRST, *neighbours)
    broker.kill()
    meter.process.wait(rig.LINK, lambda message: not message[1])
    meter.process.sample(FIRST + 1, round_ms=200)
    meter.process.wait(rig.VOTED, lambda message: message[1] == FIRST + 1)
    broker.start()
    listener = bench.Air(broker.port)
    try:
        meter.process.wait(rig.LINK, lambda message: message[1])
        found = {records.decode(meter.record(listener, topics.READING)[0].payload).seq}
        found.add(records.decode(meter.record(listener, topics.READING)[0].payload).seq)
        assert found == {1, 2}
    finally:
        listener.close()


def test_broker_may_come_up_later_than_the_meter(tmp_path: Path, meter: Meter) -> None:
    with nats_broker(tmp_path) as broker:
        broker.kill()
        meter.process.provision(bench.settings(broker.port))
        meter.process.sample(FIRST, round_ms=200)
        meter.process.wait(rig.EVENT, lambda message: "link down" in message[1])
        meter.process.wait(rig.VOTED)
        broker.start()
        air = bench.Air(broker.port)
        try:
            meter.process.wait(rig.LINK, lambda message: message[1])
            assert meter.record(air, topics.READING)[1].seq == 1
        finally:
            air.close()


def test_meter_goes_on_with_the_second_broker_when_the_first_dies(
    tmp_path: Path, broker: Broker, meter: Meter, neighbours: Pair
) -> None:
    with nats_broker(tmp_path / "second") as second:
        hosts = f"127.0.0.1:{broker.port},127.0.0.1:{second.port}"
        with closing(bench.Air(broker.port)) as air:
            meter.online(second.port, host=hosts)
            own = meter.round(air, FIRST, *neighbours)[1]
        with closing(bench.Air(second.port)) as air:
            broker.kill()
            meter.process.wait(rig.LINK, lambda message: not message[1])
            meter.process.wait(rig.LINK, lambda message: message[1])
            # what has no receipt comes again, and the next round goes on there
            assert meter.record(air, topics.READING, FIRST)[0].raw == own.raw
            meter.round(air, FIRST + 1, *neighbours)
            # a broker that is back is not run after: this one works
            broker.start()
            meter.round(air, FIRST + 2, *neighbours)


def test_second_broker_is_found_when_the_first_never_was_there(
    tmp_path: Path, broker: Broker, air: bench.Air, meter: Meter
) -> None:
    hosts = f"127.0.0.1:{free_port()},127.0.0.1"
    meter.online(broker.port, host=hosts)
    meter.process.sample(FIRST, round_ms=200)
    assert meter.record(air, topics.READING)[1].seq == 1


def test_each_broker_of_several_must_show_a_certificate_for_its_own_name(
    tmp_path: Path, meter: Meter
) -> None:
    made = make_certificates(tmp_path / "tls")
    with nats_broker(tmp_path / "tls-broker", made) as secure:
        # the certificate is for localhost and 127.0.0.1: under another name it is refused
        hosts = f"127.0.0.2:{secure.port},localhost:{secure.port}"
        meter.process.provision(
            bench.settings(secure.port, host=hosts, ca=made.ca_der.read_bytes())
        )
        meter.process.wait(rig.EVENT, lambda message: "link down" in message[1])
        meter.process.wait(rig.LINK, lambda message: message[1])


# -------------------------------------------------------------------------- hostility


def test_hostile_messages_on_every_topic_do_not_stop_it(
    broker: Broker, air: bench.Air, meter: Meter, neighbours: Pair
) -> None:
    meter.online(broker.port)
    alice, bob = neighbours
    reading = bench.Signer(bench.ALICE, boot=9).reading(FIRST + 50)
    head = bench.Blocks().close(FIRST, [b"d"])
    foreign = bench.Blocks(bench.STRANGER).close(FIRST, [b"d"])
    hostile = [
        b"",
        b"\x00",
        b"\xff" * 100,
        b"\x84" * 900,
        bytes(5000),
        bytes(20_000),
        reading.raw,
        reading.raw[:-1],
        reading.raw + b"\x00",
        head.raw[:-1] + b"\x00",
        foreign.raw,
        bench.receipt(foreign, [b"d" * 32], [b"d" * 32]),
        encode_members([reading.raw]),
        encode_members([b"x"]),
        b"\x82\x01\x80",
    ]
    names = [
        topics.head(bench.CHAIN),
        topics.members(bench.CHAIN, bench.CLUSTER),
        meter.topic(topics.RECEIPT),
        topics.meter(bench.CHAIN, bench.CLUSTER, bench.ALICE.address, topics.READING),
        topics.meter(bench.CHAIN, bench.CLUSTER, bench.STRANGER.address, topics.READING),
        "gw/1/" + bench.CHAIN.hex() + "/c1/nobody/reading",
    ]
    for name in names:
        for payload in hostile:
            air.say(name, payload)
    theirs, *_, ballot = meter.round(air, FIRST, alice, bob)
    assert dict(ballot.verdicts) == {one.digest: records.ACCEPT for one in theirs}
    *_, ballot = meter.round(air, FIRST + 1, alice, bob)
    assert [verdict for _, verdict in ballot.verdicts] == [records.ACCEPT] * 2
    assert not [text for text in meter.process.events() if "task" in text]
    assert meter.process.end() == 0


def test_broken_rig_messages_do_not_stop_it(broker: Broker, air: bench.Air, meter: Meter) -> None:
    meter.online(broker.port)
    for payload in (b"", b"\x80", b"\x81\x01", b"\x82\x01\x40", b"\xff\xff", b"\x81\x18\xff"):
        meter.process.send(payload)
        meter.process.wait(rig.EVENT, lambda message: "refused" in message[1])
    meter.process.sample(FIRST, values=[(quantities.VOLTAGE, 1), (quantities.VOLTAGE, 2)])
    meter.process.wait(rig.EVENT, lambda message: "sample refused" in message[1])
    meter.process.sample(FIRST, round_ms=200)
    assert meter.record(air, topics.READING)[1].seq == 1


# ------------------------------------------------------------------------ start and end


def test_end_of_input_ends_it_and_the_status_says_so(
    broker: Broker, air: bench.Air, meter: Meter
) -> None:
    meter.online(broker.port)
    assert air.hear(meter.topic(topics.STATUS)) == b"online"
    assert meter.process.end() == 0
    assert air.hear(meter.topic(topics.STATUS)) == b"offline"


def test_killed_meter_is_offline_by_its_last_will(
    broker: Broker, air: bench.Air, meter: Meter
) -> None:
    meter.online(broker.port)
    assert air.hear(meter.topic(topics.STATUS)) == b"online"
    meter.process.kill()
    # the will is retained: whoever asks is told, also one whose own link was down meanwhile
    assert bench.told(broker.port, meter.topic(topics.STATUS), b"offline")


def test_whoever_listens_hears_at_once_that_a_meter_was_killed(
    tmp_path: Path, meter: Meter
) -> None:
    with mosquitto_broker(tmp_path) as listened_to, closing(bench.Air(listened_to.port)) as air:
        meter.online(listened_to.port)
        assert air.hear(meter.topic(topics.STATUS)) == b"online"
        meter.process.kill()
        assert air.hear(meter.topic(topics.STATUS)) == b"offline"


def test_meter_without_settings_waits_and_ends_in_order(meter: Meter) -> None:
    assert meter.process.end() == 0


def test_stop_ends_it(meter: Meter) -> None:
    meter.process.send(rig.stop())
    assert meter.process.end() == 0


def test_new_settings_begin_a_new_boot(broker: Broker, air: bench.Air, meter: Meter) -> None:
    meter.online(broker.port)
    meter.process.sample(FIRST, round_ms=200)
    assert meter.record(air, topics.READING)[1].boot == 1
    meter.process.provision(bench.settings(broker.port, open_rounds=9))
    meter.process.sample(FIRST + 1, round_ms=200)
    reading = meter.record(air, topics.READING, FIRST + 1)[1]
    assert (reading.boot, reading.seq) == (2, 1)


def test_key_is_the_same_after_a_restart(meter: Meter) -> None:
    before = meter.public_key
    meter.restart()
    assert meter.public_key == before


def test_eleven_neighbours_fit_into_a_boards_heap(
    broker: Broker, air: bench.Air, meter: Meter
) -> None:
    own = [bench.identity(100 + i) for i in range(11)]
    meter.online(broker.port, neighbours=own)
    signers = [bench.Signer(one) for one in own]
    blocks = bench.Blocks()
    for round_ in range(FIRST, FIRST + 4):
        _, reading, _, ballot = meter.round(air, round_, *signers)
        assert [verdict for _, verdict in ballot.verdicts] == [records.ACCEPT] * 11
        digests = [reading.digest, *(bytes((i,)) * 32 for i in range(200))]
        head = blocks.close(round_, digests)
        air.say(topics.head(bench.CHAIN), head.raw, retain=True)
        receipt = bench.receipt(head, digests, [reading.digest])
        air.say(meter.topic(topics.RECEIPT), receipt)
        meter.process.wait(rig.UNRECEIPTED, lambda message: message[1] == 0)
    assert not [text for text in meter.process.events() if "Memory" in text]


# ------------------------------------------------------------------ what was learnt


@pytest.mark.parametrize("kept", [b"rubbish", b"", None], ids=["rubbish", "empty", "good"])
def test_meter_votes_whatever_is_left_of_what_it_had_learnt(
    kept: bytes | None,
    tmp_path: Path,
    broker: Broker,
    air: bench.Air,
    meter: Meter,
    neighbours: Pair,
) -> None:
    meter.online(broker.port)
    meter.round(air, FIRST, *neighbours)
    if kept is None:
        both = [one.own.address for one in neighbours]
        kept = Voter(bench.CHAIN, bench.ROUND_S, both).export()
        damaged = False
    else:
        damaged = bool(kept)
    Cell(str(tmp_path / "flash" / "learnt")).write(kept)
    meter.restart()
    meter.process.wait(rig.LINK, lambda message: message[1])
    _, _, _, ballot = meter.round(air, FIRST + 1, *neighbours)
    assert len(ballot.verdicts) == 2
    told = [text for text in meter.process.events() if "what was learnt" in text]
    assert bool(told) == damaged
