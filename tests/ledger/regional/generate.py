"""A region whose meters sign real records, for tests: the same bytes on every run.

``Region`` signs one record at a time; ``Play`` drives a node with it, round by round, and keeps
the transactions, so that a test can feed the same ones to another node. ``eventful`` is a play in
which everything happens that an honest or a faulty region shows: late readings, a member that
joins, one that leaves, one that signs two payloads for one slot.
"""

from collections.abc import Collection, Iterable
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.engine.abci import FinalizeResult
from ledger.engine.solo import Solo
from ledger.genesis import GenesisValidator, Parameters, RegionGenesis, WideGenesis
from ledger.keys import Signer
from ledger.protocol import quantities, records
from ledger.protocol.cose import Envelope
from ledger.region import RegionDirectory
from ledger.regional.aggregate import Aggregate
from ledger.regional.application import TABLES, RegionalApplication
from ledger.regional.summary import summarise
from ledger.store import Database
from ledger.verify import Verifier

ROUND_S = 60
FIRST_ROUND = 100


def signer(name: str) -> Signer:
    """Give the key pair of a name, always the same."""
    return Signer(sha256(b"gridwitness test key " + name.encode()).digest())


def validator(number: int, *, power: int = 10, key: int | None = None) -> GenesisValidator:
    """Give a validator with a key of its own, or with another one's."""
    secret = sha256(b"gridwitness test validator %d" % (number if key is None else key)).digest()
    public = Ed25519PrivateKey.from_private_bytes(secret).public_key()
    return GenesisValidator(f"node-{number}", public.public_bytes_raw(), power)


class Meter:
    """One meter's key, counters and energy register, moved on by ``Region.reading``."""

    def __init__(self, name: str, cluster: str) -> None:
        self.key = signer(name)
        self.address = self.key.address
        self.cluster = cluster
        self.boot = 1
        self.seq = 0
        self.previous = records.NO_DIGEST
        self.energy_mwh = 1_000_000

    def restart(self) -> None:
        """Begin the next boot."""
        self.boot, self.seq = self.boot + 1, 0


class Region:
    """Keys and genesis of a region, and of a wide-area chain that knows it and another one.

    ``size`` meters stand in clusters of ``cluster_size``; three operators, of whom two approve;
    with ``validators`` it is a region that several nodes serve.
    """

    def __init__(
        self,
        size: int = 20,
        *,
        cluster_size: int = 10,
        parameters: Parameters | None = None,
        name: str = "test",
        gateways: int = 1,
        validators: int = 0,
    ) -> None:
        self.parameters = parameters or Parameters(round_s=ROUND_S, open_rounds=8, window_rounds=5)
        self.meters = [Meter(f"{name} meter {i}", f"c{i // cluster_size}") for i in range(size)]
        self.operators = [signer(f"{name} operator {i}") for i in range(3)]
        self.gateways = [signer(f"{name} gateway {i}") for i in range(gateways)]
        self.validators = tuple(validator(i) for i in range(validators))
        self.genesis = RegionGenesis(
            name,
            FIRST_ROUND * ROUND_S,
            self.parameters,
            tuple(key.public_key for key in self.operators),
            2,
            tuple(key.public_key for key in self.gateways),
            tuple((m.key.public_key, m.cluster) for m in self.meters),
            self.validators,
        )
        self.chain = self.genesis.chain
        other = (b"another!", (signer("another gateway").public_key,))
        self.wide_genesis = WideGenesis("wide", 0, ((self.chain, self.genesis.gateways), other))

    def neighbours(self, meter: Meter) -> list[Meter]:
        """Give the other meters of a cluster."""
        return [m for m in self.meters if m.cluster == meter.cluster and m is not meter]

    def reading(
        self,
        meter: Meter,
        round_: int,
        *,
        power_w: int = 600,
        seq: int | None = None,
        values: list[tuple[int, int]] | None = None,
    ) -> Envelope:
        """Sign a meter's next reading; ``seq`` given again makes a second payload for a slot."""
        if seq is None:
            meter.seq += 1
            seq = meter.seq
        meter.energy_mwh += power_w * 1000 * self.parameters.round_s // 3600
        time = round_ * self.parameters.round_s
        if values is None:
            values = [
                (quantities.VOLTAGE, 230_000 + seq % 7),
                (quantities.ACTIVE_POWER, power_w * 1000),
                (quantities.FREQUENCY, 50_000),
                (quantities.ENERGY_IMPORT, meter.energy_mwh),
            ]
        reading = records.Reading(
            self.chain, meter.boot, seq, time, ROUND_S, 0, 0, meter.previous, values
        )
        envelope = meter.key.seal(reading.payload())
        meter.previous = envelope.digest
        return envelope

    def ballot(
        self, meter: Meter, round_: int, parent: bytes, verdicts: Iterable[tuple[bytes, int]]
    ) -> Envelope:
        """Sign a meter's ballot; ``verdicts`` are (digest, verdict)."""
        return meter.key.seal(records.Ballot(self.chain, round_, parent, list(verdicts)).payload())

    def close(self, round_: int, gateway: int = 0) -> Envelope:
        """Sign a gateway's order to close a round."""
        return self.gateways[gateway].seal(records.Close(self.chain, round_).payload())

    def majority(self, round_: int) -> list[Envelope]:
        """Sign as many gateways' orders to close a round as it takes."""
        return [self.close(round_, i) for i in range(len(self.gateways) // 2 + 1)]

    def approve(
        self, operator: int, number: int, action: int, key: bytes, cluster: str = ""
    ) -> Envelope:
        """Sign an operator's approval of a registry change."""
        change = records.RegistryChange(self.chain, number, action, key, cluster)
        return self.operators[operator].seal(change.payload())


class Play:
    """A region on a node of its own; every ``play`` is a round, executed as one block.

    ``path`` is the database's file, or None for one in memory.
    """

    def __init__(self, region: Region, path: Path | None = None) -> None:
        self.region = region
        self.database = Database(path, TABLES)
        self.app = RegionalApplication(region.genesis, self.database, Verifier())
        self.node = Solo(self.app)
        self.round = FIRST_ROUND
        self.blocks: list[list[bytes]] = []
        """The transactions executed, block by block."""
        self.silent: set[bytes] = set()
        """Addresses of meters that neither read nor vote in the rounds to come."""

    def execute(self, envelopes: Iterable[Envelope]) -> FinalizeResult:
        """Execute transactions as one block and sign the heads that it made."""
        txs = [envelope.raw for envelope in envelopes]
        self.blocks.append(txs)
        result = self.node.execute(txs)
        self.app.sign_heads(self.region.gateways[0])
        return result

    def active(self) -> list[Meter]:
        """Give the meters that are members in the present round and not silent."""
        members = {address for address, _ in self.app.state.active(self.round)}
        return [m for m in self.region.meters if m.address in members - self.silent]

    def play(
        self,
        *,
        extra: Iterable[Envelope] = (),
        late: Collection[Envelope] = (),
        rejected: Collection[bytes] = (),
    ) -> FinalizeResult:
        """Let the active meters read and vote, deliver ``extra`` and ``late`` too, and close.

        Neighbours vote on ``late`` readings, and reject those whose address is in ``rejected``.
        """
        meters = self.active()
        readings = [self.region.reading(meter, self.round) for meter in meters]
        judged = [*readings, *late]
        ballots = [self._ballot(meter, judged, rejected) for meter in meters]
        close = self.region.majority(self.round)
        result = self.execute([*extra, *late, *readings, *ballots, *close])
        self.round += 1
        return result

    def _ballot(
        self, meter: Meter, judged: Collection[Envelope], rejected: Collection[bytes]
    ) -> Envelope:
        neighbours = {m.address for m in self.region.neighbours(meter)}
        verdicts = [
            (e.digest, records.REJECT_VOLTAGE if e.kid in rejected else records.ACCEPT)
            for e in judged
            if e.kid in neighbours
        ]
        return self.region.ballot(meter, self.round, self.app.last_digest, verdicts)

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()


def eventful(
    path: Path | None = None, *, rounds: int = 40, gateways: int = 1, validators: int = 0
) -> Play:
    """Play rounds of 20 meters in which everything happens once; needs at least 30 rounds."""
    region = Region(gateways=gateways, validators=validators)
    play = Play(region, path)
    offline, thief, leaving, joining = (*region.meters[:3], Meter("test joining", "c0"))
    late: list[Envelope] = []
    for step in range(rounds):
        extra: list[Envelope] = []
        if step == 4:
            extra = [
                region.approve(i, 1, records.JOIN, joining.key.public_key, "c0") for i in (0, 2)
            ]
            region.meters.append(joining)
        if 8 <= step < 12:
            play.silent.add(offline.address)
            late.append(region.reading(offline, play.round))
        if step == 12:
            play.silent.discard(offline.address)
        if step == 14:
            key = leaving.key.public_key
            extra = [region.approve(i, 2, records.LEAVE, key) for i in (1, 0)]
        if step == 20:
            extra = [region.reading(thief, play.round, seq=thief.seq, power_w=1)]
        if step == 25:
            # delivered a round before it is due: it waits over a close
            extra = [region.reading(region.meters[5], play.round + 1)]
        rejected = {region.meters[7].address} if step % 6 == 5 else set()
        results = play.play(
            extra=extra, late=late if step == 12 else (), rejected=rejected
        ).tx_results
        assert all(result.code == 0 for result in results), (step, results)
    return play


def region_folder(path: Path, play: Play) -> RegionDirectory:
    """Write the genesis files of a play beside its database, and its summaries' wide-area chain.

    The play's database must be ``RegionDirectory(path).regional``.
    """
    directory = RegionDirectory(path)
    directory.genesis.write_bytes(play.region.genesis.encode())
    directory.wide_genesis.write_bytes(play.region.wide_genesis.encode())
    wide = directory.open_wide()
    node = Solo(wide)
    for envelope in summaries(play):
        # where a region has several gateways it takes more than half of them
        others = play.region.gateways[1 : len(play.region.gateways) // 2 + 1]
        signed = [envelope, *(gateway.seal(envelope.payload) for gateway in others)]
        result = node.execute([one.raw for one in signed])
        assert result.tx_results[-1].code == 0, result
    wide.close()
    return directory


def summaries(play: Play) -> list[Envelope]:
    """Give the signed summaries of a play's windows, oldest first."""
    chain = play.region.wide_genesis.chain
    return [
        play.region.gateways[0].seal(
            summarise(play.app, to_height, Aggregate.decode(blob), chain).payload()
        )
        for to_height, blob in play.app.blocks.windows_after(0)
    ]


def fingerprint(app: RegionalApplication) -> str:
    """Give a digest over everything that follows from the transactions: to compare nodes by."""
    whole = sha256(app.app_hash)
    for height in range(1, app.height + 1):
        whole.update(app.blocks.head(height).payload())
    for table in (app.blocks.all_results(), app.blocks.state_rows(), app.blocks.windows_after(0)):
        whole.update(repr(list(table)).encode())
    return whole.hexdigest()
