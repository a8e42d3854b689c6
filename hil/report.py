"""What a session came to, read from the ledger: counts, false rejections, attacks.

A reading is *honest* when no fault changed the sample that its meter signed in that round. What
voltage cannot show is not hidden: ``LIMITS`` is printed below every summary.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

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
    """Read the finished session's ledger; raises RegionError, StoreError.

    ``honest`` counts readings from round ``learning_rounds`` on, counted from 0.
    """
    genesis = session.directory.load_genesis()
    ledger = LedgerView(session.directory.regional, genesis.parameters.round_s)
    try:
        return _read(session, ledger, learning_rounds)
    finally:
        ledger.close()


def _read(session: Session, ledger: LedgerView, learning_rounds: int) -> Report:
    settled = list(ledger.readings())
    names, first = session.names, session.first_round
    lies = {
        (fault.meter, first + index)
        for fault in session.plan.faults
        for index in fault.false_rounds
    }
    outcomes = Counter(tally.OUTCOME_NAMES[r.outcome] for r in settled)
    honest = [r for r in settled if (names.get(r.address), r.round) not in lies]
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
            # those that never reached a block, too
            "unconfirmed": published - accepted - rejected,
        },
        false_rejections=sum(r.outcome == tally.REJECTED for r in honest),
        honest={"readings": late.total(), "accepted": late["accepted"]},
        gateway=dict(session.progress.status.counters),
        attacks=_attacks(session, settled),
    )


def _attacks(session: Session, settled: list[SettledReading]) -> list[Attack]:
    """Tell of each fault how many of its tries came to nothing.

    A falsehood that a meter was made to sign came to nothing where that round's reading was not
    accepted; an outsider's record, where the chain does not hold it oftener than it may.
    """
    names, first = session.names, session.first_round
    accepted = {
        (names.get(r.address), r.round - first) for r in settled if r.outcome == tally.ACCEPTED
    }
    times = Counter(r.digest for r in settled)
    return [
        Attack(
            fault.name,
            fault.attempts,
            sum((fault.meter, index) not in accepted for index in fault.false_rounds)
            + sum(times[digest] <= fault.may_stand for digest in fault.tried),
            fault.sentence,
        )
        for fault in session.plan.faults
    ]
