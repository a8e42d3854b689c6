"""What the two libraries of CPython share behind ``p256``: keys without tables of their own.

A board keeps one comb table a key; here there is nothing to build, and a table's seal is all that
is looked at, so that files of boards and hosts are checked alike.
"""

from typing import Self

from ledger.protocol._p256_pure import DEFAULT_TEETH, check_sec1_form, open_table, seal_table


class HostKey:
    """A public key in compressed SEC1 form; raises InvalidKey as ``_p256_pure.PublicKey`` does.

    ``teeth``, ``step`` and tables are the board's. Whoever derives from it loads the point.
    """

    def __init__(self, sec1: bytes, teeth: int = DEFAULT_TEETH) -> None:  # noqa: ARG002 - the seam's
        check_sec1_form(sec1)
        self.sec1 = bytes(sec1)

    @classmethod
    def from_table(cls, sec1: bytes, table: bytes, key: bytes = b"") -> Self:
        """Check a table's seal and give the key; raises InvalidKey. Its rows are not needed."""
        open_table(sec1, table, key)
        return cls(sec1)

    def step(self) -> bool:
        """Give False: nothing is left to build."""
        return False

    def table(self, key: bytes = b"") -> bytes:
        """Give a sealed table without rows; a board refuses it and builds its own."""
        return seal_table(self.sec1, 0, b"", key)
