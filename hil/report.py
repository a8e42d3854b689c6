"""What a session came to, read from the ledger: counts, false rejections, attacks.

A reading is *honest* when no fault changed the sample that its meter signed in that round. What
voltage cannot show is not hidden: ``LIMITS`` is printed below every summary.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from hil.faults import Fault, OldValues, SameBytes, ScaledVoltage
from hil.session import Session
from ledger.protocol import tally
from ledger.regional.view import LedgerView, SettledReading

LIMITS = (
    "Not visible here: power drawn past a meter while its voltage is true. Neighbours judge "
    "voltage and frequency; hidden power shows only against a head-end meter."
)


@dataclass(frozen=True)
class Attack:
    """One kind of attack: how often it was tried, and how often it came to nothing."""

    name: str
    attempts: int
    stopped: int
    sentence: str = ""


@dataclass
class Report:
    """The machine-readable summary of ``demo`` and ``replay``."""

    meters: int
    rounds: int
    blocks: int
    witnessed_height: int
    readings: dict[str, int]
    false_rejections: int
    honest: dict[str, int]
    attacks: list[Attack] = field(default_factory=list)
    wide_area: dict[str, int] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    gateway: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Give plain dicts and lists for JSON."""
        return asdict(self)


def make_report(session: Session, learning_rounds: int = 5) -> Report:
    """Read the finished session's ledger. ``honest`` counts readings after ``learning_rounds``."""
    genesis = session.directory.load_genesis()
    ledger = LedgerView(session.directory.regional, genesis.parameters.round_s)
    try:
        return _read(session, ledger, learning_rounds)
    finally:
        ledger.close()


def _read(session: Session, ledger: LedgerView, learning_rounds: int) -> Report:
    settled = list(ledger.readings())
    lies = _lies(session)
    first = session.first_round
    outcomes = Counter(tally.OUTCOME_NAMES[r.outcome] for r in settled)
    honest = [r for r in settled if (r.address, r.round) not in lies]
    late = Counter(
        tally.OUTCOME_NAMES[r.outcome] for r in honest if r.round - first >= learning_rounds
    )
    published = sum(session.published.values())
    accepted, rejected = outcomes["accepted"], outcomes["rejected"]
    return Report(
        meters=len(session.published),
        rounds=session.plan.rounds,
        blocks=ledger.blocks.height(),
        witnessed_height=ledger.witnessed(),
        readings={
            "published": published,
            "accepted": accepted,
            "rejected": rejected,
            "unconfirmed": published - accepted - rejected,
        },
        false_rejections=sum(r.outcome == tally.REJECTED for r in honest),
        honest={"readings": late.total(), "accepted": late["accepted"]},
        gateway=dict(session.progress.status.counters),
        attacks=[_attack(fault, session, settled) for fault in session.plan.faults],
    )


def _lies(session: Session) -> set[tuple[bytes, int]]:
    """Give (address, round) of the readings that a fault made false."""
    addresses = {name: address for address, name in session.names.items()}
    first = session.first_round
    return {
        (addresses[fault.meter], first + index)
        for fault in session.plan.faults
        for index in fault.rounds
    }


def _attack(fault: Fault, session: Session, settled: list[SettledReading]) -> Attack:
    if isinstance(fault, (ScaledVoltage, OldValues)):
        stopped = _not_accepted(fault, session, settled)
    else:
        stopped = _not_added(fault, settled)
    return Attack(fault.name, fault.attempts, stopped, fault.sentence)


def _not_accepted(fault: Fault, session: Session, settled: list[SettledReading]) -> int:
    """Count the rounds in which the struck meter's falsehood was not accepted."""
    first = session.first_round
    accepted = {
        r.round - first
        for r in settled
        if r.outcome == tally.ACCEPTED and session.names.get(r.address) == fault.meter
    }
    return len(fault.rounds - accepted)


def _not_added(fault: Fault, settled: list[SettledReading]) -> int:
    """Count the tries whose record is not in the chain, or not a second time."""
    times = Counter(r.digest for r in settled)
    allowed = 1 if isinstance(fault, SameBytes) else 0
    return sum(times[digest] <= allowed for digest in fault.tried)
