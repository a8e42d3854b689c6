"""What a meter is given at provisioning (SPEC section 12): its region, cluster and link.

Written by the provisioning tool over USB or the rig channel, kept on the board's flash. Nothing in
it is secret but the link's password; the meter's key is made on the board and is not here.
"""

from ledger.protocol import cbor, records
from ledger.protocol.errors import MalformedRecord

try:
    from typing import Any
except ImportError:
    pass

_VERSION = 1
_PUBLIC_KEY_BYTES = 33
_MAX_ITEMS = 512  # the most that its fields allow is 318
_MAX_BROKERS = 8


def _keys(value: "Any", most: int, name: str) -> "list[bytes]":
    return [
        records.octets(key, _PUBLIC_KEY_BYTES, name) for key in records.array(value, 0, most, name)
    ]


def _cluster(value: "Any") -> str:
    name = records.text(value, 32, "cluster")
    if not records.is_cluster_name(name):
        raise MalformedRecord("cluster name is not of letters, digits, '-' and '_'")
    return name


def brokers_of(host: str, port: int) -> "list[tuple[str, int]]":
    """Give (name or address, port) of the brokers that ``host`` lists, in its order.

    ``port`` is for those that name none. Raises MalformedRecord.
    """
    items = host.split(",")
    if len(items) > _MAX_BROKERS:
        raise MalformedRecord("more than 8 brokers")
    return [_broker(item, port, len(items) > 1) for item in items]


def _broker(item: str, port: int, among_others: bool) -> "tuple[str, int]":
    name, colon, digits = item.rpartition(":")
    if not colon or (":" in name and name[-1:] != "]"):
        name, digits = item, ""  # no port, or an IPv6 address as it is
    elif not name or not 0 < len(digits) < 6 or [c for c in digits if not "0" <= c <= "9"]:
        raise MalformedRecord("broker is not name:port")
    if digits:
        port = records.integer(int(digits), 1, 65_535, "port")
    if among_others and not name:
        raise MalformedRecord("broker without a name")
    if name[:1] == "[" and name[-1:] == "]":
        name = name[1:-1]
    return name, port


class Settings:
    """A meter's region and link.

    ``genesis`` (32-byte digest) names the region; its first 8 bytes are ``chain``. ``round_s`` is a
    round's length in seconds, ``k`` the committee size, ``open_rounds`` how long a reading may wait
    for votes. Keys are compressed SEC1 points; ``neighbours`` are those of the cluster without the
    meter itself. ``host`` may list several brokers, ``name[:port]`` separated by commas (clause
    12.4); ``brokers`` takes it apart. ``ca`` is a DER certificate, or None for a link without TLS.
    """

    FIELDS = 15  # on the wire, the version included

    def __init__(
        self,
        genesis: bytes,
        round_s: int,
        k: int,
        open_rounds: int,
        operators: "list[bytes]",
        threshold: int,
        gateways: "list[bytes]",
        cluster: str,
        neighbours: "list[bytes]",
        host: str,
        port: int,
        user: "str | None" = None,
        password: "str | None" = None,
        ca: "bytes | None" = None,
    ) -> None:
        self.genesis = genesis
        self.chain = genesis[: records.CHAIN_BYTES]
        self.round_s = round_s
        self.k = k
        self.open_rounds = open_rounds
        self.operators = operators
        self.threshold = threshold
        self.gateways = gateways
        self.cluster = cluster
        self.neighbours = neighbours
        self.host = host
        self.port = port
        self.user = user
        self.password = password
        self.ca = ca

    def brokers(self) -> "list[tuple[str, int]]":
        """Give (name or address, port) of the brokers, to be tried in this order."""
        return brokers_of(self.host, self.port)

    def encode(self) -> bytes:
        """Give the bytes that are stored on the board."""
        fields: list[Any] = [_VERSION, self.genesis, self.round_s, self.k, self.open_rounds]
        fields += [self.operators, self.threshold, self.gateways, self.cluster, self.neighbours]
        fields += [self.host, self.port, self.user, self.password, self.ca]
        return cbor.dumps(fields)

    @staticmethod
    def decode(data: bytes) -> "Settings":
        """Take stored settings apart; raises MalformedRecord."""
        f = cbor.loads(data, _MAX_ITEMS)
        records.array(f, Settings.FIELDS, Settings.FIELDS, "settings")
        records.integer(f[0], _VERSION, _VERSION, "version")
        if f[14] is not None and not isinstance(f[14], bytes):
            raise MalformedRecord("ca is not a certificate")
        host = records.text(f[10], 255, "host")
        port = records.integer(f[11], 1, 65_535, "port")
        brokers_of(host, port)
        return Settings(
            records.octets(f[1], records.DIGEST_BYTES, "genesis"),
            records.integer(f[2], 1, 86_400, "round length"),
            records.integer(f[3], 3, 255, "committee size"),
            records.integer(f[4], 1, 0xFFFF, "open rounds"),
            _keys(f[5], 32, "operator keys"),
            records.integer(f[6], 1, 32, "threshold"),
            _keys(f[7], 16, "gateway keys"),
            _cluster(f[8]),
            _keys(f[9], 255, "neighbour keys"),
            host,
            port,
            None if f[12] is None else records.text(f[12], 255, "user"),
            None if f[13] is None else records.text(f[13], 255, "password"),
            f[14],
        )
