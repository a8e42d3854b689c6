"""Whether one neighbour's clock is right: readings that come before their time, or always after it.

A reading of a round that has not begun is false whatever its values. It cannot be voted on before
the chain has it, which is when its round closes: so the verdict waits until then.

A reading of a round long over is no fault: its meter may have been offline. But a meter that is
offline sends fresh readings along with the old ones as soon as it is back. One that sends, round
for round, readings of which the newest is too old to be judged, has a clock that is slow.

Left out: shifts of a few rounds. Those readings are judged by their values: the frequency of
another minute does not fit.
"""

from ledger.protocol.records import REJECT_TIME

try:
    from typing import Any
except ImportError:
    pass

try:
    from micropython import const
except ImportError:

    def const(value: int) -> int:
        """Stand in for MicroPython's compile-time constant."""
        return value


_MOST_EARLY = const(4)
_SLOW_ROUNDS = const(4)


class Early:
    """A reading of a round to come: its slot, digest and round; ``sure`` once it was judged."""

    def __init__(self, reading: "Any", digest: bytes, round_: int) -> None:
        self.boot = reading.boot
        self.seq = reading.seq
        self.digest = digest
        self.round = round_
        self.sure = False


class Punctuality:
    """Judges a neighbour's clock; ``memory`` is the neighbour's (firmware.meter.judge.Memory)."""

    def __init__(self, memory: "Any") -> None:
        self._memory = memory
        self._early: "list[Early]" = []
        self._old: "tuple[int, int, bytes] | None" = None
        self._slow = 0

    def early(self, reading: "Any", digest: bytes, round_: int) -> None:
        """Note a reading of a round that has not begun; of many only the first are kept."""
        if len(self._early) < _MOST_EARLY and digest not in [one.digest for one in self._early]:
            self._early.append(Early(reading, digest, round_))

    def old(self, reading: "Any", digest: bytes) -> None:
        """Note a reading of a round that is too long over to be judged."""
        slot = (reading.boot, reading.seq)
        if self._old is None or slot > self._old[:2]:
            self._old = (reading.boot, reading.seq, digest)

    def judge(self, round_: int, fresh: bool, agreed: bool) -> "list[tuple[bytes, int]]":
        """Give [(digest, verdict), ...] that are due in a round's ballot.

        ``fresh`` tells whether the neighbour has sent something that could be judged; ``agreed``
        whether most other neighbours' clocks say that it is this round: this meter's own clock may
        be the one that is wrong.
        """
        found = self._judge_early(round_, agreed)
        if fresh:
            self._slow = 0
        elif self._old is not None and agreed:
            self._slow += 1
            boot, seq, digest = self._old
            if self._slow >= _SLOW_ROUNDS and self._reject(boot, seq, digest):
                found.append((digest, REJECT_TIME))
        self._old = None
        return found

    def _judge_early(self, round_: int, agreed: bool) -> "list[tuple[bytes, int]]":
        if not agreed:
            self._early = [one for one in self._early if one.sure]
        for one in self._early:
            if not one.sure:
                one.sure = self._reject(one.boot, one.seq, one.digest)
        due = [one for one in self._early if one.sure and one.round <= round_]
        self._early = [one for one in self._early if one.sure and one.round > round_]
        return [(one.digest, REJECT_TIME) for one in due]

    def _reject(self, boot: int, seq: int, digest: bytes) -> bool:
        """Keep the verdict for the slot; gives whether it may be given."""
        memory = self._memory
        given = memory.verdict(boot, seq, digest)
        if given is not None or not memory.reaches(boot, seq):
            return bool(given == REJECT_TIME)
        if memory.other_content(boot, seq, digest):
            return False
        memory.keep(boot, seq, digest, REJECT_TIME)
        return True
