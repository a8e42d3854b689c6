"""The embedded engine: heights count blocks, a block that fails does not count."""

import pytest

from ledger.engine.abci import FinalizeResult, Info, TxResult
from ledger.engine.solo import Solo
from ledger.regional import codes
from tests.ledger.regional.lab import FIRST, Lab


class Recorder:
    """An application that notes its calls; fails where it is told to."""

    def __init__(self, height: int = 0) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.height = height
        self.fail = ""

    def info(self) -> Info:
        return Info(self.height, b"")

    def check_tx(self, tx, *, new=False):
        self.calls.append(("check", tx))
        return TxResult(3, "no")

    def finalize_block(self, height, txs):
        self.calls.append(("finalize", height, list(txs)))
        if self.fail == "finalize":
            raise RuntimeError
        return FinalizeResult((), b"hash")

    def commit(self):
        self.calls.append(("commit",))
        if self.fail == "commit":
            raise RuntimeError


def test_block_is_finalized_then_committed():
    application = Recorder()
    node = Solo(application)
    assert node.execute([b"a", b"b"]).app_hash == b"hash"
    node.execute([])
    assert application.calls == [
        ("finalize", 1, [b"a", b"b"]),
        ("commit",),
        ("finalize", 2, []),
        ("commit",),
    ]
    assert node.height == 2


def test_engine_goes_on_from_the_applications_height():
    application = Recorder(41)
    node = Solo(application)
    assert node.height == 41
    node.execute([])
    assert application.calls[0][1] == 42


@pytest.mark.parametrize("where", ["finalize", "commit"])
def test_block_that_failed_does_not_count(where):
    application = Recorder()
    node = Solo(application)
    application.fail = where
    with pytest.raises(RuntimeError):
        node.execute([b"a"])
    assert node.height == 0
    application.fail = ""
    node.execute([b"a"])
    assert node.height == 1
    assert [call[1] for call in application.calls if call[0] == "finalize"] == [1, 1]


def test_check_is_the_applications():
    node = Solo(Recorder())
    assert node.check_tx(b"x") == TxResult(3, "no")


def test_refused_transactions_are_results_and_the_block_counts():
    lab = Lab()
    result = lab.node.execute([b"junk", lab.region.close(FIRST).raw])
    assert [tx.code for tx in result.tx_results] == [codes.MALFORMED, codes.OK]
    assert result.tx_results[0].log
    assert lab.node.height == 1
    assert result.app_hash == lab.app.info().last_block_app_hash
    lab.database.close()
