"""The meter's program: tasks around the pieces of this folder.

    receive   orders of the rig: settings, samples, stop
    measure   sample -> reading, signed, in the journal, in the outbox
    check     what the broker brought: heads, neighbours' readings, receipts, members
    vote      judges a round when all readings are in or time is up; the ballot goes to the outbox
    link      connects for ever and publishes the outbox
    report    tells the rig what happened
    health    feeds the watchdog after every other task has beaten

Importing this module does nothing; ``run`` is the program.
"""

import asyncio
import gc

from firmware.meter import clock, identity, inbox, rig_messages
from firmware.meter.heads import Fork, Heads
from firmware.meter.journal import Journal, RamJournal
from firmware.meter.keys import KeyRing, rare
from firmware.meter.link import Link
from firmware.meter.members import Members
from firmware.meter.outbox import Outbox
from firmware.meter.readings import Readings
from firmware.meter.reports import Reports
from firmware.meter.rig import LineClosed, RigChannel
from firmware.meter.state import State
from firmware.meter.storage import Cell, Files
from firmware.meter.voter import Voter
from firmware.meter.watch import Faults, Watch, wait
from ledger.protocol import records, tally
from ledger.protocol.cose import Envelope, address_of
from ledger.protocol.errors import BadProof, MalformedRecord, ProtocolError
from ledger.protocol.frame import CHANNEL_RIG
from ledger.protocol.messages import Receipt
from ledger.protocol.settings import Settings

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


_JOURNAL_READINGS = const(200)  # 3.3 hours of minutes; its index takes 4.4 KB of memory
_RAM_JOURNAL_READINGS = const(24)
_MAX_SAMPLES = const(8)
_BALLOT_DUE_PERCENT = const(60)  # of a round: ballots are due in its second part
_IDLE_MS = const(2000)
_BEAT_LIMIT_MS = const(60_000)
# Connecting, each wait of at most 20 s, and the longest wait between two sessions.
_LINK_LIMIT_MS = const(240_000)
_HEALTH_MS = const(2000)
# About once an hour at rounds of a minute; the state's cell is written each round.
_SAVE_ROUNDS = const(64)


class Board:
    """What differs between boards; the boards' main.py derive from it.

    ``hardware`` is the name in the enrolment request. Rounds shorter than ``journal_round_s``
    journal in memory, to spare the flash.
    """

    hardware = "none"
    journal_round_s = 30

    def feed(self) -> None:
        """Feed the watchdog."""

    async def network(self) -> None:
        """Bring the network up; raises OSError."""


class Meter:
    """A provisioned meter: everything between its settings and its stop."""

    def __init__(
        self,
        settings: Settings,
        own: identity.Identity,
        boot: int,
        folder: str,
        board: Board,
        reports: Reports,
    ) -> None:
        self._settings = settings
        self._identity = own
        self._board = board
        self._reports = reports
        self._faults = Faults(reports.event)
        self._watch = Watch(self._faults)
        self._folder = folder
        self._state = State(Cell(folder + "/state"), settings.genesis)
        journal = self._open_journal()
        self._readings = Readings(own, settings.chain, settings.round_s, boot, self._state, journal)
        self._journal = journal
        self._outbox = Outbox(journal)
        self._keys = KeyRing(folder + "/keys", own.derive(b"key tables"))
        self._members_cell = Cell(folder + "/members")
        self._members = self._open_members()
        addresses = list(self._members.keys)
        self._voter = Voter(settings.chain, settings.round_s, addresses)
        self._learnt_cell = Cell(folder + "/learnt")
        self._unsaved = 0
        self._restore_learnt()
        self._inbox = inbox.Inbox(settings.chain, settings.cluster, own.address)
        self._heads: "Any" = None
        self._samples: "list[list[Any]]" = []
        self._rounds: "list[tuple[records.Reading, Any]]" = []
        self._sampled = asyncio.Event()
        self._opened = asyncio.Event()
        self._arrived = asyncio.Event()
        self._checked = asyncio.Event()
        self._link = self._make_link()

    # ------------------------------------------------------------------------- making it

    def _open_journal(self) -> "Any":
        if self._settings.round_s < self._board.journal_round_s:
            return RamJournal(_RAM_JOURNAL_READINGS)
        journal = Journal(self._folder + "/journal", _JOURNAL_READINGS)
        if self._state.moved:  # what another region has not receipted, this one will not
            for digest, _ in journal:
                journal.remove(digest)
        return journal

    def _open_members(self) -> Members:
        settings = self._settings
        members = Members(
            settings.chain,
            settings.cluster,
            self._identity.address,
            settings.neighbours,
            settings.operators,
            settings.threshold,
            self._verify_rare,
        )
        kept = self._members_cell.read()
        if kept:
            try:
                members.restore(kept)
            except MalformedRecord as error:
                self._faults.note("members kept are damaged", str(error))
        return members

    def _restore_learnt(self) -> None:
        kept = None if self._state.moved else self._learnt_cell.read()
        if kept:
            try:
                self._voter.restore(kept)
            except MalformedRecord as error:
                self._faults.note("what was learnt of the neighbours is damaged", str(error))

    def _save_learnt(self) -> None:
        """Keep what was learnt, rarely: it changes slowly, and flash wears."""
        self._unsaved += 1
        if self._unsaved >= _SAVE_ROUNDS:
            self._unsaved = 0
            self._learnt_cell.write(self._voter.export())

    def _make_link(self) -> Link:
        return Link(
            self._settings,
            self._identity.address,
            self._outbox,
            self._board.network,
            self._on_message,
            self._tell_link,
            self._beat_link,
            self._faults.note,
        )

    async def _verify_rare(self, envelope: Envelope, public_key: bytes) -> None:
        """Check an operator's signature."""
        self._watch.beat("check")
        envelope.verify(await rare(public_key))

    async def run(self, stop: "asyncio.Event") -> "str | None":
        """Run until ``stop`` is set (None), or give the name of a task that does not beat."""
        watch = self._watch
        watch.start("measure", self._measure, _BEAT_LIMIT_MS)
        watch.start("check", self._check, _BEAT_LIMIT_MS)
        watch.start("vote", self._vote, _BEAT_LIMIT_MS)
        watch.start("link", self._link.run, _LINK_LIMIT_MS)
        late = None
        try:
            while late is None:
                self._board.feed()
                gc.collect()
                if await wait(stop, _HEALTH_MS):
                    break
                late = watch.late()
            await asyncio.wait_for(self._link.goodbye(), 1)
        except asyncio.TimeoutError:
            pass  # the broker does not read; the last will tells the rest
        finally:
            await watch.stop()
            self._journal.sync()
        return late

    # ------------------------------------------------------------------------------ link

    def _tell_link(self, online: bool) -> None:
        self._reports.put(rig_messages.link(online))

    def _beat_link(self) -> None:
        self._watch.beat("link")

    def _on_message(self, topic: str, payload: "Any", retained: bool) -> None:
        self._inbox.put(topic, payload, self._members.keys)
        self._arrived.set()

    # --------------------------------------------------------------------------- measure

    def sample(self, message: "list[Any]") -> None:
        """Take a sample of the rig (rig_messages.SAMPLE)."""
        if len(self._samples) >= _MAX_SAMPLES:
            self._samples.pop(0)
            self._faults.note("samples come faster than they can be signed")
        self._samples.append(message)
        self._sampled.set()

    async def _measure(self) -> None:
        while True:
            self._watch.beat("measure")
            if not self._samples:
                await wait(self._sampled, _IDLE_MS)
                continue
            message = self._samples.pop(0)
            started = clock.ticks_ms()
            try:
                self._sign(message, started)
            except ProtocolError as error:
                self._faults.note("sample refused", str(error))
            await asyncio.sleep(0)

    def _sign(self, message: "list[Any]", started: "Any") -> None:
        _, time, interval_s, round_ms, flags, values = message
        pairs = [(code, value) for code, value in values]
        made = self._readings.make(time, interval_s, flags, pairs)
        if made is None:
            self._faults.note("second sample of a round", str(time))
            return
        envelope, reading = made
        self._outbox.add_reading(envelope.raw)
        due = clock.ticks_add(started, round_ms * _BALLOT_DUE_PERCENT // 100)
        self._rounds.append((reading, due))
        self._opened.set()
        self._reports.put(rig_messages.unreceipted(len(self._journal)))

    # ------------------------------------------------------------------------------ vote

    async def _vote(self) -> None:
        while True:
            self._watch.beat("vote")
            if not self._rounds or self._heads is None:
                await wait(self._opened, _IDLE_MS)
                continue
            reading, due = self._rounds.pop(0)
            self._voter.open_round(reading)
            await self._gather(due)
            if self._state.may_vote(self._voter.round):
                self._cast()

    async def _gather(self, due: "Any") -> None:
        """Wait until every neighbour's reading is there, time is up, or the next round begins."""
        while not self._rounds and not self._voter.complete():
            self._watch.beat("vote")
            left_ms = clock.ticks_diff(due, clock.ticks_ms())
            if left_ms <= 0:
                return
            await wait(self._checked, min(left_ms, _IDLE_MS))

    def _cast(self) -> None:
        state = self._state
        ballot = self._voter.vote(self._heads.digest)
        # before the ballot leaves: what it names and that it was made must not be forgotten
        state.head = (self._heads.height, self._heads.digest)
        state.ballot_round = ballot.round
        state.save()
        envelope = self._identity.seal(ballot.payload())
        self._outbox.add_ballot(ballot.round, envelope.digest, envelope.raw)
        self._save_learnt()
        counts = tally.count([verdict for _, verdict in ballot.verdicts])
        self._reports.put(rig_messages.voted(ballot.round, *counts))

    # ----------------------------------------------------------------------------- check

    async def _prepare(self) -> None:
        """Make the gateways' keys ready; on a board that may take seconds each."""
        gateways = {}
        for sec1 in self._settings.gateways:
            self._watch.beat("check")
            gateways[address_of(sec1)] = await self._keys.get(sec1)
        held = self._state.head
        self._heads = Heads(self._settings.chain, self._settings.genesis, gateways, held)
        self._opened.set()

    async def _check(self) -> None:
        if self._heads is None:
            await self._prepare()
        while True:
            self._watch.beat("check")
            item = self._inbox.get()
            if item is None:
                await wait(self._arrived, _IDLE_MS)
                continue
            try:
                await self._take(item[0], item[1], item[2])
            except ProtocolError as error:
                self._faults.note("refused: " + error.__class__.__name__, str(error))
            await asyncio.sleep(0)

    async def _take(self, kind: int, sender: bytes, data: bytes) -> None:
        if kind == inbox.HEAD:
            try:
                self._take_head(Envelope.parse(data), None)
            except BadProof:
                pass  # some rounds were missed: a receipt brings the bridge
        elif kind == inbox.READING:
            await self._take_reading(sender, Envelope.parse(data))
        elif kind == inbox.RECEIPT:
            self._take_receipt(Receipt.decode(data))
        elif await self._members.take(data):
            self._members_cell.write(self._members.export())
            self._voter.change_neighbours(list(self._members.keys))
            self._keys.keep_only(self._settings.gateways + list(self._members.keys.values()))
            self._reports.event("members changed: " + str(len(self._members.keys)) + " neighbours")

    async def _take_reading(self, sender: bytes, envelope: Envelope) -> None:
        public_key = self._members.keys.get(sender)
        if envelope.kid != sender or public_key is None:
            raise MalformedRecord("reading on the topic of somebody else")
        reading = records.decode(envelope.payload)
        if not isinstance(reading, records.Reading) or reading.chain != self._settings.chain:
            raise MalformedRecord("not a reading of this region")
        # judged before means that its signature has been checked: the verdict is repeated
        if not self._voter.known(sender, reading, envelope.digest):
            key = await self._keys.get(public_key)
            envelope.verify(key)
        if self._voter.take(sender, reading, envelope.digest):
            self._checked.set()

    def _take_head(self, envelope: Envelope, bridge: "Any") -> "Any":
        """Check a head and hold it if it is newer; gives it."""
        try:
            head = self._heads.check(envelope)
            if self._heads.adopt(envelope, head, bridge):
                self._reports.put(rig_messages.head(head.height, head.round))
        except Fork as error:
            self._reports.event("gateway contradicts itself: " + str(error))
            raise
        return head

    def _take_receipt(self, receipt: Receipt) -> None:
        head = self._take_head(receipt.head, receipt.bridge)
        digests = receipt.proved(head)
        # a reading leaves the journal only when the state knows what came after it
        if self._state.previous in digests:
            self._state.save()
        if self._outbox.receipted(digests):
            self._reports.put(rig_messages.unreceipted(len(self._journal)))


class Program:
    """The rig's orders, and one Meter after the other."""

    def __init__(self, folder: str, board: Board, port: "Any" = None) -> None:
        Files().make_folder(folder)
        self._folder = folder
        self._board = board
        self._identity, boot, fresh = identity.start(folder)
        self._boot: "int | None" = boot
        self._channel = RigChannel(port)
        self._reports = Reports(self._channel)
        self._settings_cell = Cell(folder + "/settings")
        self._settings = self._settings_cell.read()
        self._meter: "Meter | None" = None
        self._early: "list[list[Any]]" = []
        self._turn = asyncio.Event()
        self._stopping = False
        self._status = 0
        if fresh:
            self._reports.event("new key made")

    async def run(self) -> int:
        """Run until the rig stops it or its line ends; gives 0, or 1 where a task gave up."""
        self._enrol()
        watch = Watch(Faults(self._reports.event), self._give_up)
        watch.start("report", self._reports.run)
        watch.start("receive", self._receive)
        status = 0
        while not self._stopping and not status:
            status = await self._run_meter()
        status = status or self._status
        await watch.stop()
        try:
            await asyncio.wait_for(self._reports.flush(), 1)
        except (OSError, asyncio.TimeoutError):
            pass  # nobody reads
        return status

    def _enrol(self) -> None:
        settings = self._decoded_settings()
        chain = settings.chain if settings else bytes(records.CHAIN_BYTES)
        envelope = self._identity.enrolment(chain, self._board.hardware)
        self._reports.put(rig_messages.enrol(envelope.raw))

    async def _run_meter(self) -> int:
        """Run a meter with the settings there are until the next order; gives the exit status."""
        settings = self._decoded_settings()
        if settings is None:
            while not await wait(self._turn, _HEALTH_MS):
                self._board.feed()
            return 0
        # each meter counts its readings from 1, so each needs a number of its own
        boot, self._boot = self._boot or identity.next_boot(self._folder), None
        meter = Meter(settings, self._identity, boot, self._folder, self._board, self._reports)
        self._meter = meter
        for message in self._early:
            meter.sample(message)
        self._early = []
        late = await meter.run(self._turn)
        self._meter = None
        if late is not None:
            self._reports.event("task does not beat: " + late)
            return 1
        return 0

    def _decoded_settings(self) -> "Settings | None":
        if self._settings is None:
            return None
        try:
            return Settings.decode(self._settings)
        except ProtocolError as error:
            self._reports.event("settings refused: " + str(error))
            return None

    async def _receive(self) -> None:
        while not self._stopping:
            try:
                channel, payload = await self._channel.recv()
                if channel == CHANNEL_RIG:
                    self._obey(rig_messages.decode(payload))
            except LineClosed:
                self._stop()
            except ProtocolError as error:
                self._reports.event("rig message refused: " + str(error))

    def _obey(self, message: "list[Any]") -> None:
        if message[0] == rig_messages.STOP:
            self._stop()
        elif message[0] == rig_messages.IDENTIFY:
            self._enrol()
        elif message[0] == rig_messages.PROVISION:
            self._provision(message[1])
        elif message[0] == rig_messages.SAMPLE:
            if self._meter is None or self._turn.is_set():
                self._early = (self._early + [message])[-_MAX_SAMPLES:]
            else:
                self._meter.sample(message)

    def _give_up(self, name: str) -> None:
        """End where the rig's line cannot be read or written any more."""
        self._status = 1
        self._stop()

    def _stop(self) -> None:
        self._stopping = True
        self._turn.set()

    def _provision(self, data: bytes) -> None:
        """Keep new settings and begin anew with them; the same settings again change nothing."""
        Settings.decode(data)
        if data != self._settings:
            self._settings_cell.write(data)
            Cell(self._folder + "/members").write(b"")
            self._settings = data
            self._turn.set()
        self._enrol()


async def run(folder: str, board: Board, port: "Any" = None) -> int:
    """Run the meter with its state in ``folder``; gives the exit status."""
    return await Program(folder, board, port).run()
