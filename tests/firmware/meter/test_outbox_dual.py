"""What leaves when, and what leaves again."""

from firmware.meter.journal import RamJournal
from firmware.meter.outbox import Outbox
from ledger.protocol import topics


def drain(outbox):
    """Give the raw records that would leave now."""
    out = []
    while True:
        item = outbox.take()
        if item is None:
            return out
        out.append(item[1])


def fill(journal, outbox, count, start=0):
    for i in range(start, start + count):
        journal.append(b"k%d" % i, b"r%d" % i)
        outbox.add_reading(b"r%d" % i)


def make():
    journal = RamJournal(50)
    return journal, Outbox(journal)


def test_record_leaves_once_when_it_is_made():
    journal, outbox = make()
    fill(journal, outbox, 1)
    assert outbox.take() == (topics.READING, b"r0")
    assert outbox.take() is None
    outbox.add_ballot(1, b"d", b"b")
    assert outbox.take() == (topics.BALLOT, b"b")
    assert outbox.take() is None


def test_everything_without_a_receipt_leaves_after_the_link_was_rebuilt():
    journal, outbox = make()
    fill(journal, outbox, 12)
    outbox.add_ballot(1, b"d1", b"b1")
    outbox.add_ballot(2, b"d2", b"b2")
    drain(outbox)
    outbox.receipted([b"k3", b"d1"])
    outbox.restart()
    left = drain(outbox)
    assert left[0] == b"b2"
    assert left[1:] == [b"r%d" % i for i in range(12) if i != 3]


def test_reading_that_had_not_left_leaves_first():
    journal, outbox = make()
    fill(journal, outbox, 5)
    outbox.restart()
    assert outbox.take() == (topics.READING, b"r4")


def test_readings_without_receipts_leave_again_ever_more_rarely():
    journal, outbox = make()
    again = []
    for i in range(40):
        fill(journal, outbox, 1, i)
        if len(drain(outbox)) > 1:
            again.append(i)
    # the third reading is the first to leave an old one behind; then 4, 8, 16 rounds later
    assert again == [2, 6, 14, 30]


def test_receipt_makes_the_others_leave_soon_again():
    journal, outbox = make()
    for i in range(20):
        fill(journal, outbox, 1, i)
        drain(outbox)
    outbox.receipted([b"k19"])
    left = []
    for i in (20, 21):
        fill(journal, outbox, 1, i)
        left = drain(outbox)
    assert len(left) == 9


def test_every_reading_has_its_turn():
    journal, outbox = make()
    fill(journal, outbox, 30)
    drain(outbox)
    seen = set()
    for i in range(30, 42):
        outbox.receipted([b"k%d" % (i - 1)] if i % 2 == 0 else [])
        fill(journal, outbox, 1, i)
        seen |= set(drain(outbox))
    assert set([b"r%d" % i for i in range(29)]) <= seen


def test_ballot_without_a_receipt_leaves_once_more_and_is_given_up():
    journal, outbox = make()
    left = []
    for round_ in range(6):
        outbox.add_ballot(round_, b"d%d" % round_, b"b%d" % round_)
        left.append(drain(outbox))
    assert left[:4] == [[b"b0"], [b"b1"], [b"b0", b"b2"], [b"b1", b"b3"]]
    outbox.restart()
    assert drain(outbox) == [b"b2", b"b3", b"b4", b"b5"]


def test_receipts_count_what_was_waiting():
    journal, outbox = make()
    fill(journal, outbox, 2)
    outbox.add_ballot(1, b"d1", b"b1")
    assert outbox.receipted([b"k0", b"d1", b"unknown"]) == 2
    assert len(journal) == 1
    assert outbox.receipted([b"k0"]) == 0


def test_flood_of_samples_does_not_grow_the_queue():
    journal, outbox = make()
    fill(journal, outbox, 45)
    assert len(outbox._fresh) <= 16
