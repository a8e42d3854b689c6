"""Bytes of a reading: as a signed record, and as the MQTT packet that carries it."""

from collections.abc import Iterator

from ledger.protocol import topics
from tools.bench import load
from tools.bench.figure import Figure, limit

MAX_COSE_BYTES = 200
MAX_PACKET_BYTES = 270
_CLUSTER = "c12"  # as the rig names them; every letter more is a byte more


def publish_packet_bytes(topic: str, payload: bytes) -> int:
    """Give the size of a PUBLISH packet at QoS 1 (MQTT 3.1.1, section 3.3).

    Fixed header with the remaining length, topic with its length, packet identifier, payload.
    """
    remaining = 2 + len(topic.encode()) + 2 + len(payload)
    length_bytes = max(1, -(-remaining.bit_length() // 7))
    return 1 + length_bytes + remaining


def measure() -> Iterator[Figure]:
    """Measure a reading with five quantities, in its second year."""
    keys = load.meter_keys(load.CLUSTER)
    genesis = load.genesis_of(keys)
    reading = load.reading(genesis.chain, 7, 800_000, bytes(range(32)))
    envelope = keys[7].seal(reading.payload())
    topic = topics.meter(genesis.chain, _CLUSTER, keys[7].address, topics.READING)
    packet = publish_packet_bytes(topic, envelope.raw)
    yield limit("reading, 5 quantities: COSE", len(envelope.raw), "B", MAX_COSE_BYTES)
    yield limit("reading, 5 quantities: MQTT packet", packet, "B", MAX_PACKET_BYTES)
