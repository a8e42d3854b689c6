"""Topics name one meter each, and nothing else comes of any text (SPEC section 6)."""

from hypothesis import given
from hypothesis import strategies as st

from ledger.protocol import topics
from ledger.protocol.errors import MalformedRecord
from tests.ledger.protocol.strategies import chains, cluster_names
from tests.vector_files import load

CASES = load("topics")
LEVELS = [level for topic in CASES["topics"].values() for level in topic.split("/")]
odd = st.sampled_from([*LEVELS, "", "+", "#", "0" * 32, "AB" * 16]) | st.text(max_size=33)


@given(chains, cluster_names, st.binary(min_size=16, max_size=16), st.sampled_from(LEVELS))
def test_topics_round_trip(chain, cluster, address, kind):
    topic = topics.meter(chain, cluster, address, kind)
    assert topics.split(topic) == (cluster, address, kind)


@given(st.text(max_size=100) | st.lists(odd, max_size=7).map("/".join))
def test_any_text_is_a_meters_topic_or_malformed(text):
    try:
        cluster, address, kind = topics.split(text)
    except MalformedRecord:
        return
    region = bytes.fromhex(text.split("/")[2])
    assert topics.meter(region, cluster, address, kind) == text
