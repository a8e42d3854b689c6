"""What the store keeps of a record is all of it: the bytes that were signed come back."""

import random
import sqlite3
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.genesis import Parameters
from ledger.protocol import cbor, cose, quantities, records
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import MalformedRecord
from ledger.regional.blocks import TABLES
from ledger.regional.compact import MOST_BACK, Compact, place_of, prefix_of, record_id
from tests.ledger.regional.generate import eventful
from tests.ledger.regional.lab import FIRST, Lab

GENESIS = bytes(range(32))
CHAIN = GENESIS[:8]
HEIGHT = 100

Entries = list[tuple[Envelope, records.Reading | records.Ballot | records.RegistryChange]]


class Shelf:
    """A store of packed records alone, and the two sides of the codec over it."""

    def __init__(self) -> None:
        self.sql = sqlite3.connect(":memory:", isolation_level=None)
        self.sql.executescript(TABLES)
        self.writer = self.reader()

    def reader(self) -> Compact:
        return Compact(self.sql.execute, lambda: GENESIS)

    def put(self, height: int, entries: Entries) -> list[bytes]:
        packed = self.writer.pack(height, entries)
        for index, (envelope, record) in enumerate(entries):
            id_ = record_id(height, index)
            self.sql.execute("INSERT INTO records VALUES (?,?)", (id_, packed[index]))
            if isinstance(record, records.Reading):
                row = (prefix_of(envelope.digest), id_)
                self.sql.execute("INSERT INTO digests VALUES (?,?)", row)
        return packed

    def put_head(self, height: int, digest: bytes) -> None:
        row = (height, height, digest, b"")
        self.sql.execute("INSERT INTO heads VALUES (?,?,?,?,NULL)", row)

    def get(self, compact: Compact | None = None) -> dict[int, Envelope]:
        compact = compact or self.reader()
        rows = self.sql.execute("SELECT id, packed FROM records ORDER BY id").fetchall()
        return {id_: compact.unpack(id_, packed) for id_, packed in rows}


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf()
    yield shelf
    shelf.sql.close()


def entry(kid: bytes, payload: bytes, signature: bytes = b"s" * 64):
    """Give a record as the rules see it: an envelope that was parsed, and what it holds."""
    envelope = Envelope.parse(cose.join(kid, payload, signature).raw)
    return envelope, records.decode(envelope.payload)


def reading(number: int, seq: int = 1, chain: bytes = CHAIN):
    values = [(quantities.VOLTAGE, 230_000), (quantities.ENERGY_IMPORT, 1 << 40)]
    record = records.Reading(chain, 1, seq, 6000, 60, 0, 0, bytes(32), values)
    return entry(bytes([number]) * 16, record.payload())


def ballot(number: int, digests: Sequence[bytes], parent: bytes = GENESIS, chain: bytes = CHAIN):
    verdicts = [(digest, records.ACCEPT) for digest in digests]
    return entry(bytes([number]) * 16, records.Ballot(chain, 100, parent, verdicts).payload())


# every record comes back


class Draw:
    """Records of any content that the rules may let in, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.kids = [self.rng.randbytes(16) for _ in range(5)]

    def u32(self, low: int = 0) -> int:
        return max(low, self.rng.choice([0, 23, 24, 255, 256, 2**32 - 1, self.rng.getrandbits(32)]))

    def chain(self) -> bytes:
        return self.rng.choice([CHAIN] * 7 + [bytes(8)])

    def seal(self, payload: bytes):
        return entry(self.rng.choice(self.kids), payload, self.rng.randbytes(64))

    def reading(self):
        rng = self.rng
        codes = sorted(rng.sample(sorted(quantities.BY_CODE), rng.randint(1, 6)))
        limits = (0, -1, 2**62, -(2**62), rng.getrandbits(40))
        record = records.Reading(
            self.chain(),
            self.u32(1),
            self.u32(1),
            rng.choice([0, 6000, records.MAX_TIME]),
            rng.choice([1, 60, 86_400]),
            rng.randrange(16),
            self.u32(),
            rng.randbytes(32),
            [(code, rng.choice(limits)) for code in codes],
        )
        return self.seal(record.payload())

    def ballot(self, known: list[bytes], heads: list[bytes]):
        rng = self.rng
        digests = rng.sample(known, rng.randint(0, min(12, len(known))))
        digests += [rng.randbytes(32) for _ in range(rng.choice([0, 0, 1, 12]))]
        rng.shuffle(digests)
        verdicts = [(digest, rng.choice([0, 1, 1, 16, 23, 24, 63])) for digest in digests]
        parent = rng.choice([*heads, rng.randbytes(32)])
        ballot = records.Ballot(self.chain(), self.u32(), parent, verdicts)
        return self.seal(ballot.payload())

    def change(self):
        joins = self.rng.random() < 0.5
        action, cluster = (records.JOIN, "c-1_Z") if joins else (records.LEAVE, "")
        key = self.rng.randbytes(33)
        change = records.RegistryChange(self.chain(), self.u32(1), action, key, cluster)
        return self.seal(change.payload())


@pytest.mark.parametrize("seed", range(60))
def test_every_record_comes_back_byte_for_byte(shelf, seed):
    draw = Draw(seed)
    heads = [GENESIS]
    known: list[bytes] = []
    kept: dict[int, bytes] = {}
    for height in sorted(draw.rng.sample(range(1, 90), 5)):
        entries: Entries = [draw.reading() for _ in range(draw.rng.randint(0, 6))]
        known += [envelope.digest for envelope, _ in entries]
        entries += [draw.ballot(known, heads) for _ in range(draw.rng.randint(0, 6))]
        entries += [draw.change() for _ in range(draw.rng.randint(0, 2))]
        packed = shelf.put(height, entries)
        for index, (envelope, _) in enumerate(entries):
            kept[record_id(height, index)] = envelope.raw
            assert len(packed[index]) <= len(envelope.raw)
        heads.append(draw.rng.randbytes(32))
        shelf.put_head(height, heads[-1])
    for compact in (shelf.reader(), shelf.writer):
        found = shelf.get(compact)
        assert {id_: envelope.raw for id_, envelope in found.items()} == kept
        for envelope in found.values():
            assert vars(envelope) == vars(Envelope.parse(envelope.raw))
    # one alone, without what others left behind
    for id_, raw in kept.items():
        row = shelf.sql.execute("SELECT packed FROM records WHERE id=?", (id_,)).fetchone()
        assert shelf.reader().unpack(id_, row[0]).raw == raw


def test_blocks_in_which_everything_happens_come_back_as_they_were_delivered():
    play = eventful(None)
    heights = range(1, play.app.height + 1)
    kept = [raw for height in heights for raw in play.app.blocks.records_of(height)]
    delivered = {raw for block in play.blocks for raw in block}
    assert len(kept) == len(set(kept)) == 1584
    assert set(kept) <= delivered
    play.close()


# what is stored


def test_ballot_refers_to_readings_of_its_block_and_of_earlier_ones(shelf):
    old, new, unknown = reading(1), reading(2), bytes(31) + b"u"
    shelf.put(HEIGHT - 3, [reading(9), old])
    shelf.put_head(HEIGHT - 1, bytes(31) + b"h")
    judged = [old[0].digest, new[0].digest, unknown]
    packed = shelf.put(HEIGHT, [new, ballot(3, judged, bytes(31) + b"h")])
    fields = cbor.loads(packed[1])
    assert fields[2:] == [100, HEIGHT - 1, [[3, 1], 1, 0, 1, unknown, 1]]
    assert len(packed[1]) < 150


def test_reading_too_far_back_is_named_in_full(shelf):
    old = reading(1)
    shelf.put(HEIGHT, [old])
    (near,) = shelf.put(HEIGHT + MOST_BACK, [ballot(3, [old[0].digest])])
    (far,) = shelf.put(HEIGHT + MOST_BACK + 1, [ballot(4, [old[0].digest])])
    assert cbor.loads(near)[4] == [[MOST_BACK, 0], 1]
    assert cbor.loads(far)[4] == [old[0].digest, 1]


def test_digests_that_begin_alike_are_told_apart(shelf):
    old = reading(1)
    shelf.put(HEIGHT, [old])
    twin = old[0].digest[:8] + bytes(24)
    (packed,) = shelf.put(HEIGHT + 1, [ballot(3, [twin])])
    assert cbor.loads(packed)[4] == [twin, 1]


def test_signers_are_numbered_as_they_come(shelf):
    shelf.put(1, [reading(7), reading(5), ballot(7, [])])
    shelf.put(2, [reading(6), reading(5, seq=2)])
    rows = shelf.sql.execute("SELECT number, address FROM signers ORDER BY number").fetchall()
    assert rows == [(0, b"\x07" * 16), (1, b"\x05" * 16), (2, b"\x06" * 16)]


def test_record_of_another_region_is_kept_as_it_is(shelf):
    other = reading(1, chain=bytes(8))
    packed = shelf.put(1, [other, ballot(2, [other[0].digest], chain=bytes(8))])
    assert packed == [other[0].raw, ballot(2, [other[0].digest], chain=bytes(8))[0].raw]


def test_numbers_of_a_dropped_transaction_are_given_again():
    lab = Lab(4, parameters=Parameters(round_s=60))
    first = lab.reading(2, FIRST)
    lab.app.finalize_block(1, [first.raw, lab.region.close(FIRST).raw])
    lab.app._undo()
    second = lab.reading(3, FIRST)
    lab.close(FIRST, second)
    assert lab.app.blocks.records_of(1) == [second.raw]
    rows = lab.database.connection.execute("SELECT number, address FROM signers").fetchall()
    assert rows == [(0, second.kid)]
    lab.database.close()


# what is stored wrongly


@pytest.fixture
def filled(shelf) -> Shelf:
    shelf.put_head(HEIGHT - 1, bytes(31) + b"h")
    one, two = reading(1), reading(2)
    shelf.put(HEIGHT - 1, [one])
    judged = [one[0].digest, two[0].digest, bytes(32)]
    shelf.put(HEIGHT, [two, ballot(3, judged, bytes(31) + b"h")])
    return shelf


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_changed_bytes_give_another_record_or_are_malformed(data):
    shelf = Shelf()
    one, two = reading(1), reading(2)
    shelf.put(HEIGHT - 1, [one])
    shelf.put(HEIGHT, [two, ballot(3, [one[0].digest, two[0].digest, bytes(32)])])
    before = shelf.get()
    id_ = data.draw(st.sampled_from(sorted(before)))
    row = shelf.sql.execute("SELECT packed FROM records WHERE id=?", (id_,)).fetchone()
    packed = bytearray(row[0])
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    try:
        found = shelf.reader().unpack(id_, bytes(packed))
    except MalformedRecord:
        found = None
    shelf.sql.close()
    assert found is None or found.raw != before[id_].raw


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=1200), st.none(), st.integers(), st.text(max_size=3)))
def test_any_value_is_a_record_or_malformed(packed):
    shelf = Shelf()
    try:
        assert isinstance(shelf.reader().unpack(record_id(3, 1), packed), Envelope)
    except MalformedRecord:
        pass
    shelf.sql.close()


FIELDS = st.recursive(
    st.one_of(
        st.integers(-2, 70),
        st.sampled_from([2**20, 2**32, 2**63, 2**64 - 1, HEIGHT, HEIGHT - 1, True, None]),
        st.sampled_from([bytes(16), bytes(32), bytes(64), bytes(900)]),
    ),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(FIELDS, max_size=6), st.booleans())
def test_any_fields_are_a_record_or_malformed(fields, signed):
    shelf = Shelf()
    shelf.put(HEIGHT, [reading(1)])
    if signed:
        fields = [0, bytes(64), *fields]
    try:
        envelope = shelf.reader().unpack(record_id(HEIGHT, 1), cbor.dumps(fields))
        assert Envelope.parse(envelope.raw).raw == envelope.raw
    except MalformedRecord:
        pass
    shelf.sql.close()


def unpack_fields(shelf: Shelf, change) -> Envelope:
    id_ = record_id(HEIGHT, 1)
    row = shelf.sql.execute("SELECT packed FROM records WHERE id=?", (id_,)).fetchone()
    fields = cbor.loads(row[0])
    change(fields)
    return shelf.reader().unpack(id_, cbor.dumps(fields))


def put(*path_and_value):
    *path, last, value = path_and_value

    def change(fields):
        for step in path:
            fields = fields[step]
        fields[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (put(0, 9), "signer, number 9, is missing"),
        (put(1, bytes(63)), "signature is not 64 bytes"),
        (put(3, HEIGHT), "parent's digest"),
        (put(4, 0, [2, 0]), "a reading that it judges is missing"),
        (put(4, 0, [0, 0]), "blocks back"),
        (put(4, 0, [MOST_BACK + 1, 0]), "blocks back"),
        (put(4, 0, 1), "a reading that it judges is missing"),  # a ballot, this one
        (put(4, 0, 1 << 20), "index"),
        (put(4, 0, bytes(31)), "digest is not 32 bytes"),
        (put(4, 1, -1), "verdict"),
        (lambda fields: fields[4].pop(), "a reading without a verdict"),
        (put(4, [0, 1] * 25), "verdicts is not an array of its length"),
        (put(4, [bytes(32), 300]), "verdict"),
    ],
)
def test_reference_to_nothing_is_malformed(filled, change, why):
    with pytest.raises(MalformedRecord, match=why):
        unpack_fields(filled, change)


def test_ballot_that_unfolds_into_more_than_a_record_is_malformed(filled):
    with pytest.raises(MalformedRecord, match="unfolds"):
        unpack_fields(filled, put(4, [0, 24] * 24))


def test_place_and_id_are_the_same():
    assert place_of(record_id(7, 5)) == (7, 5)
