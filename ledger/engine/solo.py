"""The embedded engine: one process, one proposer, a block whenever it is asked for one.

The application's ``commit`` is the only durable step, so a crash anywhere leaves the chain at the
last block that ``execute`` returned from, or one further; never in between.
"""

from ledger.engine.abci import Application, FinalizeResult, TxResult


class Solo:
    """Drives one application in this process."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self._height = application.info().last_block_height

    @property
    def height(self) -> int:
        """The number of blocks executed."""
        return self._height

    def check_tx(self, tx: bytes) -> TxResult:
        """Ask whether a transaction would be let in."""
        return self.application.check_tx(tx)

    def execute(self, txs: list[bytes]) -> FinalizeResult:
        """Apply the transactions as one block; durable when this returns."""
        result = self.application.finalize_block(self._height + 1, txs)
        self.application.commit()
        self._height += 1
        return result
