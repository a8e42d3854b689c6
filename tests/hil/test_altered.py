"""Altered applications are wrong in the one way that their name says, and right otherwise."""

import pytest

from hil import altered
from hil.traffic import MadeRegion
from ledger.genesis import WideGenesis
from ledger.store import Database
from ledger.verify import Verifier
from ledger.wide import codes
from ledger.wide.application import TABLES, WideApplication

REGION = MadeRegion("region")
GENESIS = WideGenesis("wide", 0, (REGION.entry,))


def make(kind: type[WideApplication]) -> WideApplication:
    return kind(GENESIS, Database(None, TABLES), Verifier())


def summary(number: int) -> bytes:
    return REGION.sealed(GENESIS.chain, number).raw


def block(app: WideApplication, height: int, *txs: bytes) -> list[int]:
    results = app.finalize_block(height, txs).tx_results
    app.commit()
    return [result.code for result in results]


def test_made_region_reports_without_end() -> None:
    app = make(WideApplication)
    assert block(app, 1, summary(0), summary(1)) == [codes.OK, codes.OK]
    assert block(app, 2, summary(2), summary(2)) == [codes.OK, codes.DUPLICATE]


def test_other_state_is_the_right_one_until_its_block_comes() -> None:
    right, wrong = make(WideApplication), make(altered.application_class("other-state@2"))
    for app in (right, wrong):
        assert block(app, 1, summary(0)) == [codes.OK]
    assert right.app_hash == wrong.app_hash
    for app in (right, wrong):
        assert block(app, 2, summary(1)) == [codes.OK]
    assert right.app_hash != wrong.app_hash
    more = wrong.state.region(REGION.chain).energy_in - right.state.region(REGION.chain).energy_in
    assert more == altered.STOLEN_MWH


def test_forged_proposal_is_right_to_nobody_else() -> None:
    right, wrong = make(WideApplication), make(altered.application_class("forged-proposal"))
    proposed = wrong.prepare_proposal([summary(0)], 10_000)
    assert proposed[0] == summary(0)
    assert len(proposed) == 3
    assert wrong.process_proposal(1, proposed)
    assert not right.process_proposal(1, proposed)
    assert all(not right.process_proposal(1, [tx]) for tx in proposed[1:])
    assert right.process_proposal(1, proposed[:1])


def test_contrary_application_refuses_what_is_right() -> None:
    wrong = make(altered.application_class("contrary@2"))
    assert wrong.process_proposal(1, [summary(0)])
    block(wrong, 1, summary(0))
    assert not wrong.process_proposal(2, [summary(1)])


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("dies-in-finalize@2", "finalize_block"),
        ("dies-before-commit@2", "commit"),
        ("dies-after-commit@2", "commit"),
    ],
)
def test_application_dies_where_its_name_says(
    monkeypatch: pytest.MonkeyPatch, kind: str, call: str
) -> None:
    class Died(BaseException):
        pass

    def die() -> None:
        raise Died

    monkeypatch.setattr(altered, "_die", die)
    app = make(altered.application_class(kind))
    block(app, 1, summary(0))
    if call == "commit":
        app.finalize_block(2, [summary(1)])
        with pytest.raises(Died):
            app.commit()
    else:
        with pytest.raises(Died):
            app.finalize_block(2, [summary(1)])
    durable = app.store.height() == 2 and not app._database.connection.in_transaction
    assert durable == (kind == "dies-after-commit@2")


@pytest.mark.parametrize("name", ["", "honest", "other-state@", "other-state@-1", "other-state@x"])
def test_unknown_alteration_is_refused_by_name(name: str) -> None:
    if name == "other-state@":
        assert altered.application_class(name).first == 1
        return
    with pytest.raises(SystemExit, match="none of other-state"):
        altered.application_class(name)
