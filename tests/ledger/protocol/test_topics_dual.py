"""Topics (SPEC section 6) on both interpreters, against the shared vectors."""

from ledger.protocol import topics
from ledger.protocol.errors import MalformedRecord
from tests.vector_files import load, raised, unhex


def test_topics_are_those_of_the_vectors():
    vectors = load("topics")
    chain, cluster = unhex(vectors["chain"]), vectors["cluster"]
    address = unhex(vectors["address"])
    expected = vectors["topics"]
    for kind in (topics.READING, topics.BALLOT, topics.STATUS, topics.RECEIPT):
        assert topics.meter(chain, cluster, address, kind) == expected[kind]
    assert topics.head(chain) == expected["head"]
    assert topics.registry(chain) == expected["registry"]
    assert topics.members(chain, cluster) == expected["members"]


def test_filters_are_those_of_the_vectors():
    vectors = load("topics")
    chain, filters = unhex(vectors["chain"]), vectors["filters"]
    assert topics.cluster_readings(chain, vectors["cluster"]) == filters["cluster_readings"]
    assert topics.every(chain, topics.READING) == filters["every_reading"]
    assert topics.every(chain, topics.BALLOT) == filters["every_ballot"]
    assert topics.every(chain, topics.STATUS) == filters["every_status"]


def test_a_meters_topic_comes_apart_into_its_parts():
    vectors = load("topics")
    cluster, address = vectors["cluster"], unhex(vectors["address"])
    for kind in ("reading", "ballot", "status", "receipt"):
        assert topics.split(vectors["topics"][kind]) == (cluster, address, kind)


def test_any_other_topic_is_refused():
    for case in load("topics")["invalid"]:
        assert raised(MalformedRecord, topics.split, case["topic"]), case["reason"]
