"""What is kept of the broker's messages, and in which order it is taken out."""

from firmware.meter import inbox
from ledger.protocol import topics

CHAIN = bytes(8)
OWN, A, B = b"o" * 16, b"a" * 16, b"b" * 16
NEIGHBOURS = {A: None, B: None}


def make():
    return inbox.Inbox(CHAIN, "c1", OWN)


def topic(who, kind=topics.READING, cluster="c1"):
    return topics.meter(CHAIN, cluster, who, kind)


def test_urgent_comes_first():
    box = make()
    box.put(topics.members(CHAIN, "c1"), b"m", NEIGHBOURS)
    box.put(topic(OWN, topics.RECEIPT), b"r", NEIGHBOURS)
    box.put(topic(A), b"a", NEIGHBOURS)
    box.put(topics.head(CHAIN), b"h", NEIGHBOURS)
    assert box.get() == (inbox.HEAD, b"", b"h")
    assert box.get() == (inbox.READING, A, b"a")
    assert box.get() == (inbox.RECEIPT, b"", b"r")
    assert box.get() == (inbox.MEMBERS, b"", b"m")
    assert box.get() is None


def test_flood_of_one_kind_holds_up_no_other():
    flood = (
        (inbox.HEAD, topics.head(CHAIN)),
        (inbox.READING, topic(B)),
        (inbox.RECEIPT, topic(OWN, topics.RECEIPT)),
        (inbox.MEMBERS, topics.members(CHAIN, "c1")),
    )
    for kind, flooded in flood:
        box = make()
        for _, name in flood:
            box.put(name, b"honest", NEIGHBOURS)
        found = []
        for _ in range(5):
            box.put(flooded, b"flood", NEIGHBOURS)
            found.append(box.get()[0])
        assert sorted(set(found)) == [inbox.HEAD, inbox.READING, inbox.RECEIPT, inbox.MEMBERS], kind


def test_payload_is_copied_out_of_the_clients_buffer():
    box = make()
    buffer = bytearray(b"one")
    box.put(topic(A), memoryview(buffer), NEIGHBOURS)
    buffer[:] = b"two"
    assert box.get() == (inbox.READING, A, b"one")


def test_newest_head_replaces_the_one_that_waits():
    box = make()
    box.put(topics.head(CHAIN), b"1", NEIGHBOURS)
    box.put(topics.head(CHAIN), b"2", NEIGHBOURS)
    assert box.get() == (inbox.HEAD, b"", b"2")
    assert box.get() is None


def test_one_neighbours_flood_pushes_out_its_own_readings_only():
    box = make()
    box.put(topic(B), b"b", NEIGHBOURS)
    for i in range(20):
        box.put(topic(A), b"a%d" % i, NEIGHBOURS)
    found = [box.get() for _ in range(5)]
    kept = [(inbox.READING, A, b"a%d" % i) for i in (17, 18, 19)]
    assert found == [(inbox.READING, B, b"b")] + kept + [None]
    assert box.dropped == 17


def test_receipts_are_bounded():
    box = make()
    for i in range(20):
        box.put(topic(OWN, topics.RECEIPT), b"%d" % i, NEIGHBOURS)
    assert box.get() == (inbox.RECEIPT, b"", b"14")


def test_others_are_counted_and_not_kept():
    box = make()
    for name in (
        topic(b"s" * 16),
        topic(A, topics.BALLOT),
        topic(A, cluster="c2"),
        topic(A, topics.RECEIPT),
        "gw/1/x",
        "gw/1/x/c1/" + "z" * 32 + "/reading",
        "",
    ):
        box.put(name, b"x", NEIGHBOURS)
    assert box.get() is None
    assert box.strangers == 7


def test_own_readings_are_ignored():
    box = make()
    box.put(topic(OWN), b"x", NEIGHBOURS)
    assert box.get() is None
    assert box.strangers == 0


def test_too_long_record_is_not_kept():
    box = make()
    box.put(topic(A), bytes(1025), NEIGHBOURS)
    box.put(topics.head(CHAIN), bytes(1025), NEIGHBOURS)
    assert box.get() is None
