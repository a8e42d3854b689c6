"""Making a region: genesis, keys, configuration, and what each meter is told of it.

A region made here has one gateway. One that several gateways serve is a network, which
``gridwitness network init`` makes (``gateway.network``); ``meter_settings`` tells meters of either.

What a meter needs is a small part of the genesis (``ledger.protocol.settings``): its own cluster's
keys, the operators' and the gateways'.
"""

import time
from collections.abc import Mapping, Sequence

from gateway import config
from ledger.genesis import Parameters, RegionGenesis, WideGenesis
from ledger.keys import Signer
from ledger.protocol import cose, p256, records
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import ProtocolError
from ledger.protocol.settings import Settings, brokers_of
from ledger.region import RegionDirectory


def create_region(
    directory: RegionDirectory,
    name: str,
    parameters: Parameters,
    *,
    operators: int = 3,
    threshold: int = 2,
    members: Sequence[tuple[bytes, str]] = (),
    created: int | None = None,
    settings: Mapping[str, object] | None = None,
) -> RegionGenesis:
    """Write genesis, keys and gateway.toml of a new region; gives its genesis.

    ``settings`` are values for gateway.toml (see gateway.config.render). Raises FileExistsError
    when there is a region already, ConfigError or OSError; the genesis is written last, so a
    folder without one is no region.
    """
    if directory.genesis.exists():
        raise FileExistsError(f"{directory.genesis} exists: there is a region here already")
    directory.keys.mkdir(parents=True, exist_ok=True)
    operator_keys = [Signer.generate() for _ in range(operators)]
    gateway_key = Signer.generate()
    for number, key in enumerate(operator_keys, 1):
        key.save(directory.keys / f"operator-{number}.key")
    gateway_key.save(directory.keys / "gateway.key")
    genesis = RegionGenesis(
        name,
        int(time.time()) if created is None else created,
        parameters,
        tuple(key.public_key for key in operator_keys),
        threshold,
        (gateway_key.public_key,),
        tuple(members),
    )
    wide = WideGenesis("wide", genesis.created, ((genesis.chain, genesis.gateways),))
    config.write_default(directory.config, settings)
    directory.wide_genesis.write_bytes(wide.encode())
    directory.genesis.write_bytes(genesis.encode())
    return genesis


def meter_settings(
    genesis: RegionGenesis,
    address: bytes,
    host: str,
    port: int,
    *,
    cluster: str | None = None,
    user: str | None = None,
    password: str | None = None,
    ca: bytes | None = None,
) -> Settings:
    """Give what a meter is told; ``ca`` is a DER certificate for TLS.

    ``host`` may list the brokers of several gateways, ``name[:port]`` separated by commas (SPEC
    12.4); ``port`` is for those that name none. Raises MalformedRecord for a list of another form.
    ``cluster`` is needed for a meter that joins later; of other changes since the genesis the
    meter learns from the broker. Raises KeyError when the address is no member's and none is given.
    """
    if cluster is None:
        clusters = {cose.address_of(key): name for key, name in genesis.members}
        cluster = clusters[address]
    neighbours = [
        key for key, own in genesis.members if own == cluster and cose.address_of(key) != address
    ]
    parameters = genesis.parameters
    brokers_of(host, port)
    return Settings(
        genesis.digest,
        parameters.round_s,
        parameters.committee,
        parameters.open_rounds,
        list(genesis.operators),
        genesis.threshold,
        list(genesis.gateways),
        cluster,
        neighbours,
        host,
        port,
        user,
        password,
        ca,
    )


def open_enrolment(raw: bytes) -> tuple[Envelope, records.Enrolment]:
    """Check a meter's enrolment request, signed by the key that it names; raises ProtocolError."""
    envelope = Envelope.parse(raw)
    request = records.decode(envelope.payload)
    if not isinstance(request, records.Enrolment):
        raise ProtocolError("not an enrolment request")
    if cose.address_of(request.public_key) != envelope.kid:
        raise ProtocolError("the enrolment request is signed by another key")
    envelope.verify(p256.PublicKey(request.public_key))
    return envelope, request
