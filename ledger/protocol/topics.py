"""MQTT topics (SPEC section 6): ``gw/1/<region>/<cluster>/<address>/<kind>``."""

from binascii import hexlify, unhexlify

from ledger.protocol.cose import ADDRESS_BYTES
from ledger.protocol.errors import MalformedRecord
from ledger.protocol.records import CHAIN_BYTES, is_cluster_name

_ROOT = "gw/1/"
READING = "reading"
BALLOT = "ballot"
STATUS = "status"
RECEIPT = "receipt"


def _hex(data: bytes) -> str:
    return hexlify(data).decode()


def meter(chain: bytes, cluster: str, address: bytes, kind: str) -> str:
    """Give the topic of one meter's messages of one kind."""
    return _ROOT + _hex(chain) + "/" + cluster + "/" + _hex(address) + "/" + kind


def cluster_readings(chain: bytes, cluster: str) -> str:
    """Give the filter for all readings of a cluster (a voter subscribes at QoS 0)."""
    return _ROOT + _hex(chain) + "/" + cluster + "/+/" + READING


def every(chain: bytes, kind: str) -> str:
    """Give the filter for all messages of one kind in a region (the gateway subscribes)."""
    return _ROOT + _hex(chain) + "/+/+/" + kind


def head(chain: bytes) -> str:
    """Give the topic of the newest head (retained)."""
    return _ROOT + _hex(chain) + "/head"


def registry(chain: bytes) -> str:
    """Give the topic on which operators hand registry changes to the gateway."""
    return _ROOT + _hex(chain) + "/registry"


def members(chain: bytes, cluster: str) -> str:
    """Give the topic of a cluster's registry changes in force (retained)."""
    return _ROOT + _hex(chain) + "/" + cluster + "/members"


def split(topic: str) -> "tuple[str, bytes, str]":
    """Give (cluster, address, kind) of a meter's topic; raises MalformedRecord.

    The kind is what the topic says; a receiver ignores kinds that it does not know (SPEC 6.4).
    """
    parts = topic.split("/")
    if len(parts) != 6 or parts[:2] != ["gw", "1"] or not is_cluster_name(parts[3]):
        raise MalformedRecord("not a meter's topic")
    _unhex(parts[2], CHAIN_BYTES)
    return parts[3], _unhex(parts[4], ADDRESS_BYTES), parts[5]


def _unhex(text: str, size: int) -> bytes:
    try:
        data = unhexlify(text)
    except ValueError:
        raise MalformedRecord("not a meter's topic")
    # One name for one thing: capitals would make a second topic of the same address.
    if len(data) != size or _hex(data) != text:
        raise MalformedRecord("not a meter's topic")
    return data
