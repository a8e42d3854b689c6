"""What happens on a region's chain and on the wide-area chain, as one sequence: always the same.

A step is a transaction, or what the engine convicts a validator of. Refused ones are among them.
"""

from collections.abc import Iterator
from dataclasses import replace

from ledger.engine.abci import DUPLICATE_VOTE, Misbehaviour, Validator
from ledger.genesis import GenesisValidator, WideGenesis
from ledger.network import NetworkChange, RegionGateways, Remove, Upgrade, What
from ledger.protocol import records
from ledger.protocol.cose import Envelope
from tests.ledger.regional.generate import FIRST_ROUND, Meter, Play, Region, summaries, validator
from tests.ledger.wide import bench

Step = bytes | Misbehaviour

ROUNDS = 24


def convicted(validator_: GenesisValidator, height: int = 1) -> Misbehaviour:
    """Give what the engine says of a validator that voted twice."""
    address = Validator(validator_.public_key, validator_.power).address
    return Misbehaviour(DUPLICATE_VOTE, address, height)


class Regional:
    """A region of three gateways and four nodes, played on a node of its own.

    In its rounds: late readings, rejected ones, a member that joins and one that leaves, one that
    signs two payloads for a slot, a gateway that signs another head, a record that waits over a
    close, validators that join, leave and misbehave, an upgrade planned; and bytes of every wrong
    kind. ``steps`` has all of it in order.
    """

    def __init__(self) -> None:
        self.region = Region(12, cluster_size=6, gateways=3, validators=4)
        self.genesis = self.region.genesis
        self.play = Play(self.region)
        self.steps: list[Step] = []
        self._late: list[Envelope] = []
        self._changes = 0
        for step in range(ROUNDS):
            self._round(step)

    def _round(self, step: int) -> None:
        region, play = self.region, self.play
        self._tell([e.raw for e in self._extra(step)])
        late, self._late = (self._late, []) if step == 9 else ([], self._late)
        readings = [region.reading(meter, play.round) for meter in play.active()]
        rejected = {region.meters[7].address} if step % 6 == 5 else set()
        ballots = [play._ballot(m, [*readings, *late], rejected) for m in play.active()]
        forged = readings[0].raw[:-1] + bytes([readings[0].raw[-1] ^ 1])
        self._tell([forged, *(e.raw for e in (*late, *readings, *ballots))])
        self._tell(self._rubbish(readings[0]))
        # one gateway asks early for a later round, two make a majority, the third comes too late
        closes = [region.close(play.round + (g == 2 and step % 5 == 0), g) for g in (2, 0, 1)]
        self._tell([e.raw for e in closes])
        if step == 16:
            self._tell([convicted(self.region.validators[1], step)])
        play.round += 1

    def _extra(self, step: int) -> Iterator[Envelope]:
        region, play = self.region, self.play
        offline, thief, leaving = region.meters[0], region.meters[1], region.meters[6]
        if step == 3:
            joining = Meter("test joining", "c0")
            key = joining.key.public_key
            yield from (region.approve(i, 1, records.JOIN, key, "c0") for i in (0, 2))
            region.meters.append(joining)
        if 5 <= step < 9:
            play.silent.add(offline.address)
            self._late.append(region.reading(offline, play.round))
        if step == 9:
            play.silent.discard(offline.address)
        if step == 11:
            key = leaving.key.public_key
            yield from (region.approve(i, 2, records.LEAVE, key) for i in (1, 0))
        if step == 14:
            yield region.reading(thief, play.round, seq=thief.seq, power_w=1)
        if step == 15:
            yield region.reading(region.meters[5], play.round + 1)
        if step == 18:
            head = play.app.blocks.head(play.app.height - 1)
            head.records_root = bytes(32)
            yield region.gateways[2].seal(head.payload())
        planned = {
            7: validator(9),
            10: Remove("node-0"),
            13: validator(2, power=25),
            17: validator(1),  # comes back after it was convicted
            20: Upgrade(2, 1 << 40),
        }
        if step in planned:
            yield from self.approvals(planned[step])

    def approvals(self, what: What) -> list[Envelope]:
        """Give two operators' approvals of a change of the network."""
        self._changes += 1
        payload = NetworkChange(self.genesis.chain, self._changes, what).payload()
        return [self.region.operators[i].seal(payload) for i in (0, 2)]

    def _rubbish(self, reading: Envelope) -> list[bytes]:
        region = self.region
        stranger = Meter("stranger", "c0")
        other = Region(1, name="other")
        return [
            b"",
            reading.raw,  # again
            reading.raw[:-2],
            region.reading(stranger, self.play.round).raw,
            other.reading(other.meters[0], self.play.round).raw,
            region.close(FIRST_ROUND - 1).raw,
            region.approve(0, 99, records.LEAVE, region.meters[2].key.public_key).raw,
        ]

    def _tell(self, steps: list[Step]) -> None:
        """Let the region's own node have the steps, so that what follows fits them."""
        self.steps += steps
        for step in steps:
            if isinstance(step, bytes):
                self.play.node.execute([step])


class Wide:
    """A wide-area chain of three regions: a played one's summaries and those of made-up ones.

    With conflicts, gaps, repetitions, a second gateway that reports the same, changes of the
    network and misbehaviour. ``steps`` has all of it in order.
    """

    def __init__(self, regional: Play) -> None:
        region = regional.region
        self.genesis: WideGenesis = replace(
            bench.MANAGED, regions=(*bench.GENESIS.regions, (region.chain, region.genesis.gateways))
        )
        region.wide_genesis = self.genesis
        played = [envelope.raw for envelope in summaries(regional)]
        self.steps: list[Step] = []
        self._changes = 0
        for number in range(20):
            self.steps += self._window(number)
            self.steps += played[number : number + 1]
        self.steps += [played[0], played[-1][:-1]]

    def _window(self, number: int) -> list[Step]:
        def sealed(n: int, region: bytes = bench.NORTH, **changes: object) -> bytes:
            return bench.sealed(n, region, chain=self.genesis.chain, **changes).raw

        steps: list[Step] = [sealed(number), sealed(number)]
        if number % 2:
            steps += [sealed(number // 2, bench.SOUTH), sealed(number, bench.SOUTH)]
        if number % 4 == 0:  # one of five gateways lies, the others report; three are enough
            liar, *honest = [
                bench.offer(number // 4, i, chain=self.genesis.chain, alarms=9 * (not i)).raw
                for i in range(5)
            ]
            steps += [liar, *honest]
        if number in (6, 7):  # contradicts itself, twice
            steps.append(sealed(number - 3, energy_in=999_999 + number))
        if number == 8:
            steps.append(convicted(bench.VALIDATORS[1], number))
        planned: dict[int, What] = {
            2: GenesisValidator("sub-3", bench.ed25519("sub-3"), 5),
            5: Remove("sub-1"),
            9: bench.VALIDATORS[1],
            11: RegionGateways(b"newcomer", (bench.SECOND_KEY.public_key,)),
            13: GenesisValidator("gw-a", bench.ed25519("gw-a, rotated"), 12),
            15: Upgrade(2, 1 << 40),
        }
        if number in planned:
            self._changes += 1
            payload = NetworkChange(self.genesis.chain, self._changes, planned[number]).payload()
            steps += [bench.OPERATORS[i].seal(payload).raw for i in (0, 1, 2)]
        return steps
