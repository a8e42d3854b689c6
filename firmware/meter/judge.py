"""Judges one neighbour's reading: runs the rules of ``checks`` in order and remembers verdicts.

All that is known of a neighbour is a ``Profile`` of fixed size. A verdict once given is kept for
the reading's slot and given again, for a voter that contradicts itself is evidence against itself.

Left out: signature and membership, which the voter has checked before; where readings come from.
"""

from array import array

from firmware.meter import checks
from ledger.protocol.records import ABSTAIN, ACCEPT, is_reject

try:
    from typing import Any

    from firmware.meter.feeder import Feeder
    from firmware.meter.history import Own
    from ledger.protocol.records import Reading
except ImportError:
    pass

try:
    from micropython import const
except ImportError:

    def const(value: int) -> int:
        """Stand in for MicroPython's compile-time constant."""
        return value


_SLOTS = const(8)  # as many rounds as firmware.meter.history reaches back
_KEY = const(8)
# Two readings of one key with the same first 96 bits cost their maker 2^48 hashes and win nothing:
# in the chain a second payload for a slot is equivocation whatever was voted.
_DIGEST = const(12)
_ENTRY = const(21)  # boot (4), seq (4), digest (12), verdict (1)
_WIDTHS = {"i": 4, "q": 8}
_RULES: "list[Any]" = list(checks.ORDER)
_LEARNING = [i for i in range(len(_RULES)) if _RULES[i].CELLS]
PROFILE_BYTES = sum([rule.CELLS * _WIDTHS[rule.TYPE] for rule in _RULES]) + (_SLOTS * _ENTRY + _KEY)


class Memory:
    """The newest eight slots of a neighbour: boot, seq, first 12 bytes of the digest, verdict.

    The lowest slot is forgotten first, whatever the order they came in: so everything above the
    highest forgotten one is either remembered or new, and nobody can make this meter judge twice.
    """

    def __init__(self) -> None:
        self._data = bytearray(_SLOTS * _ENTRY)
        self._forgotten = bytes(_KEY)
        self._lowest = 0

    def _slot(self, boot: int, seq: int) -> int:
        """Give where a slot's entry starts, or -1."""
        key = _key(boot, seq)
        at = self._data.find(key)
        while at > 0 and at % _ENTRY:  # the same bytes across an entry's fields
            at = self._data.find(key, at + 1)
        return at

    def digest_of(self, boot: int, seq: int) -> "bytes | None":
        """Give the first bytes of the digest of a slot, or None if the slot is not remembered."""
        at = self._slot(boot, seq)
        return None if at < 0 else bytes(self._data[at + _KEY : at + _KEY + _DIGEST])

    def other_content(self, boot: int, seq: int, digest: bytes) -> bool:
        """Tell whether a slot is remembered with another digest."""
        held = self.digest_of(boot, seq)
        return held is not None and held != digest[:_DIGEST]

    def verdict(self, boot: int, seq: int, digest: bytes) -> "int | None":
        """Give the verdict that this very reading got, or None."""
        at = self._slot(boot, seq)
        if at < 0 or self._data[at + _KEY : at + _KEY + _DIGEST] != digest[:_DIGEST]:
            return None
        return self._data[at + _ENTRY - 1]

    def reaches(self, boot: int, seq: int) -> bool:
        """Tell whether a slot is above every forgotten one: it is remembered, or surely new."""
        return _key(boot, seq) > self._forgotten

    def keep(self, boot: int, seq: int, digest: bytes, verdict: int) -> None:
        """Remember a slot in the place of the lowest one, or forget it where it is lower still."""
        key = _key(boot, seq)
        at = self._lowest
        lowest = bytes(self._data[at : at + _KEY])
        self._forgotten = max(self._forgotten, min(key, lowest))
        if key > lowest:
            self._data[at : at + _ENTRY] = key + digest[:_DIGEST] + bytes((verdict,))
            self._find_lowest()

    def _find_lowest(self) -> None:
        """Find the entry that goes next."""
        lowest = None
        for at in range(0, _SLOTS * _ENTRY, _ENTRY):
            key = self._data[at : at + _KEY]
            if lowest is None or key < lowest:
                lowest = key
                self._lowest = at


def _key(boot: int, seq: int) -> bytes:
    return boot.to_bytes(4, "big") + seq.to_bytes(4, "big")


class Profile:
    """What this meter knows of one neighbour: the rules' cells and the memory of slots.

    ``feeder`` and ``slot`` are the neighbour's place in what the neighbourhood says, where one has
    been made of it (firmware.meter.voter does); without one its rules accept.
    """

    def __init__(self, feeder: "Feeder | None" = None, slot: int = 0) -> None:
        self.cells = [
            array(rule.TYPE, bytes(rule.CELLS * _WIDTHS[rule.TYPE])) for rule in checks.ORDER
        ]
        self.memory = Memory()
        self.feeder = feeder
        self.slot = slot


class Judge:
    """Gives verdicts on readings whose signature holds; ``round_s`` is the region's round."""

    def __init__(self, round_s: int) -> None:
        self._round_s = round_s
        self._scratch = [0] * len(_RULES)

    def judge(self, profile: Profile, reading: "Reading", digest: bytes, own: "Own | None") -> int:
        """Give a verdict (SPEC section 4): accept, a reject reason, or abstain.

        ``own`` is this meter's round of the reading's time, or None. Readings of one neighbour are
        best handed in by rising (boot, seq). The same reading gets the same verdict again, and one
        that may have been judged before and is forgotten (older than all that is remembered, or of
        a round before this start) is abstained from: a second verdict would be evidence.
        """
        given = profile.memory.verdict(reading.boot, reading.seq, digest)
        if given is not None:
            return given
        if own is None or not profile.memory.reaches(reading.boot, reading.seq):
            return ABSTAIN
        case = checks.Case(reading, digest, self._round_s)
        case.own = own
        case.memory = profile.memory
        case.feeder = profile.feeder
        case.slot = profile.slot
        verdict = self._run(case, profile.cells)
        for i in _LEARNING:
            case.scratch = self._scratch[i]
            _RULES[i].learn(case, profile.cells[i], verdict)
        if not profile.memory.other_content(reading.boot, reading.seq, digest):
            profile.memory.keep(reading.boot, reading.seq, digest, verdict)
        return verdict

    def _run(self, case: checks.Case, cells: "list[Any]") -> int:
        """Run every rule, for each may have something to learn; the first reject counts."""
        verdict = ACCEPT
        for i in range(len(_RULES)):
            case.scratch = 0
            found = _RULES[i].judge(case, cells[i])
            self._scratch[i] = case.scratch
            if found != ACCEPT and not is_reject(verdict):
                verdict = found
        return verdict
