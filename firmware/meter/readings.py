"""Makes this meter's readings: counts them, chains them, signs them, journals them.

One reading a round: a second sample of a round is left out, also after a restart. The reading is in
the journal when ``make`` returns, so that nothing is published that a power cut could forget.
"""

from ledger.protocol import records
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import MalformedRecord

try:
    from typing import Any

    from firmware.meter.identity import Identity
    from firmware.meter.state import State
except ImportError:
    pass


class Readings:
    """``boot`` is the number of this start; ``journal`` holds readings without a receipt.

    The journal holds this region's readings only, by digest.
    """

    def __init__(
        self,
        identity: "Identity",
        chain: bytes,
        round_s: int,
        boot: int,
        state: "State",
        journal: "Any",
    ) -> None:
        self._identity = identity
        self._chain = chain
        self._round_s = round_s
        self._boot = boot
        self._seq = 0
        self._state = state
        self._journal = journal
        self._take_up_journal()

    def _take_up_journal(self) -> None:
        """Go on from the newest reading in the journal where it is newer than the state."""
        newest = None
        for entry in self._journal:
            newest = entry
        if newest is None:
            return
        digest, raw = newest
        try:
            reading = records.decode(Envelope.parse(raw).payload)
        except MalformedRecord:
            return
        if isinstance(reading, records.Reading):
            round_ = reading.time // self._round_s
            if round_ > self._state.reading_round:
                self._state.previous = digest
                self._state.reading_round = round_

    def make(
        self, time: int, interval_s: int, flags: int, values: "list[tuple[int, int]]"
    ) -> "tuple[Envelope, records.Reading] | None":
        """Sign and journal the reading of a sample; None where the round has one already.

        Raises MalformedRecord for a sample that no reading can hold, OSError where the journal
        refuses.
        """
        state = self._state
        round_ = time // self._round_s
        if round_ <= state.reading_round:
            return None
        lost = self._journal.lost
        reading = records.Reading(
            self._chain,
            self._boot,
            self._seq + 1,
            time,
            interval_s,
            flags,
            lost,
            state.previous,
            sorted(values),
        )
        payload = reading.payload()
        records.decode(payload)  # what others would refuse is not signed
        envelope = self._identity.seal(payload)
        self._seq += 1
        self._journal.append(envelope.digest, envelope.raw, lost)
        state.previous = envelope.digest
        state.reading_round = round_
        return envelope, reading
