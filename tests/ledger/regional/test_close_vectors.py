"""Closes, heads and application hashes against a second writing of docs/SPEC.md (section 11)."""

from typing import Any

import pytest

from ledger.engine.abci import Decision, Misbehaviour
from ledger.genesis import RegionGenesis
from ledger.regional.application import TABLES, RegionalApplication
from ledger.store import Database
from ledger.verify import Verifier
from tests.vector_files import load, unhex

REGIONS = load("closes")["regions"]


def _execute(app: RegionalApplication, height: int, step: dict[str, Any]) -> tuple[int, ...]:
    txs, convicted = [], ()
    if "tx" in step:
        txs.append(unhex(step["tx"]))
    else:
        kind, address, at = step["misbehaviour"]
        convicted = (Misbehaviour(kind, unhex(address), at),)
    result = app.finalize_block(height, txs, Decision(bytes(20), convicted))
    app.commit()
    assert result.app_hash == app.app_hash
    return tuple(tx.code for tx in result.tx_results)


@pytest.mark.parametrize("region", REGIONS, ids=lambda region: region["note"])
def test_steps_give_codes_heads_and_application_hashes(region: dict[str, Any]) -> None:
    genesis = RegionGenesis.decode(unhex(region["genesis"]))
    app = RegionalApplication(genesis, Database(None, TABLES), Verifier())
    for height, step in enumerate(region["steps"], 1):
        found = _execute(app, height, step)
        assert found == ((step["code"],) if "tx" in step else ()), step["note"]
        assert (app.height, app.app_hash.hex()) == (step["heads"], step["app_hash"]), step["note"]
    heads = [app.blocks.head_payload(at + 1) for at in range(app.height)]
    assert [head.hex() for head in heads if head] == region["heads"]
    app.close()
