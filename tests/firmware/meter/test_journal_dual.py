"""The journal with the power cut at every step of the filesystem, on both interpreters."""

from firmware.meter.journal import Journal, RamJournal
from firmware.meter.storage import Cell, Counter, StorageDamaged


class PowerCut(Exception):
    pass


class Draw:
    """Small repeatable random numbers, the same on both interpreters."""

    def __init__(self, seed):
        self.state = seed + 1

    def below(self, limit):
        self.state = (self.state * 1103515245 + 12345) & 0x7FFFFFFF
        return (self.state >> 8) % limit


class CutFiles:
    """Files in memory whose power goes at step `cut_at`; then restart() shows what was left.

    Until a call returns, its file may hold none, some or all of the new bytes, zeros or garbage in
    their place; a deleted file may still be there.
    """

    def __init__(self, draw):
        self.draw = draw
        self.stored = {}
        self.deleted = {}
        self.steps = 0
        self.cut_at = 0

    def restart(self):
        if self.draw.below(2):
            for path, data in self.deleted.items():
                if self.draw.below(2):
                    self.stored.setdefault(path, data)
        self.deleted = {}
        self.steps = self.cut_at = 0

    def _step(self):
        self.steps += 1
        if self.steps == self.cut_at:
            raise PowerCut

    def _torn(self, data):
        size = self.draw.below(len(data) + 1)
        garbage = bytes([self.draw.below(256) for _ in range(len(data) - size)])
        return (
            b"",
            data[:size],
            data,
            bytes(len(data)),
            data[:size] + bytes(len(data) - size),
            data[:size] + garbage,
        )[self.draw.below(6)]

    def make_folder(self, path):
        pass

    def names(self, path):
        return [name[len(path) + 1 :] for name in self.stored if name.startswith(path + "/")]

    def read(self, path, offset=0, size=-1):
        if path not in self.stored:
            raise OSError(2)
        data = self.stored[path]
        return data[offset:] if size < 0 else data[offset : offset + size]

    def append(self, path, data):
        self._put(path, self.stored.get(path), data)

    def write(self, path, data):
        self._put(path, None, data)

    def _put(self, path, before, data):
        self._step()  # nothing happened yet
        try:
            self._step()  # between opening and the end of the sync
        except PowerCut:
            torn = self._torn(data)
            if before is not None or torn or self.draw.below(2):
                self.stored[path] = (before or b"") + torn
            raise
        self.stored[path] = (before or b"") + data

    def rename(self, old, new):
        self._step()
        self.stored[new] = self.stored.pop(old)
        self._step()  # done, but the caller does not hear of it

    def remove(self, path):
        self._step()
        if path not in self.stored:
            raise OSError(2)
        self.deleted[path] = self.stored.pop(path)
        self._step()


class Model:
    """What the journal must hold: entries (key, record, carried), oldest first, and the count."""

    def __init__(self):
        self.live = []
        self.gone = []
        self.lost = 0

    def drop(self, count):
        for entry in self.live[:count]:
            self.lost += 1 + entry[2]
        del_count = count
        self.live = self.live[del_count:]

    def appended(self, entry, dropped):
        self.lost -= entry[2]
        self.drop(dropped)
        self.live.append(entry)

    def remove(self, key):
        self.gone += [entry for entry in self.live if entry[0] == key]
        self.live = [entry for entry in self.live if entry[0] != key]

    def check(self, journal, cut=None):
        """Compare after a restart; `cut` is the entry whose append was cut, if one was."""
        found = list(journal)
        assert len(found) == len(journal)
        keys = [key for key, _ in found]
        assert len(set(keys)) == len(keys)
        if cut and cut[0] in keys:
            live = [entry for entry in self.live if entry[0] in keys]
            dropped = len(self.live) - len(live)
            assert self.live[dropped:] == live, "not the oldest were dropped"
            self.appended(cut, dropped)
        assert journal.lost == self.lost
        back = [entry for entry in self.gone if entry[0] in keys]
        known = self.live + back
        for entry in self.live:
            assert entry[0] in keys, "a stored entry is missing"
        assert sorted(found) == sorted([entry[:2] for entry in known])
        order = {}
        for at in range(len(known)):
            order[known[at][0]] = known[at]
        self.live = [order[key] for key in keys]  # what came back is there again
        assert sorted(self.live) == sorted(known)
        self.gone = []


class Meter:
    """Does what a meter does with its journal, by lot, and keeps a model of it."""

    def __init__(self, files, draw, **sizes):
        self.files = files
        self.draw = draw
        self.sizes = sizes
        self.model = Model()
        self.number = 0
        self.cut = None
        self.open()

    def open(self):
        self.journal = Journal("j", files=self.files, **self.sizes)

    def act(self):
        self.cut = None
        choice = self.draw.below(10)
        live = self.model.live
        if choice < 6 or not live:
            self.append()
        elif choice < 8:
            self.remove(live[0][0])
        elif choice < 9:
            self.remove(live[self.draw.below(len(live))][0])
        else:
            self.journal.sync()

    def append(self):
        self.number += 1
        key = self.number.to_bytes(4, "big")
        record = bytes([self.number & 255]) * self.draw.below(60)
        lost = self.model.lost if self.draw.below(2) else 0
        self.cut = (key, record, lost)
        dropped = self.journal.append(key, record, lost)
        self.model.appended(self.cut, dropped)
        self.cut = None

    def remove(self, key):
        # Gone from the model first: a cut while the note is written may leave either.
        self.model.remove(key)
        assert self.journal.remove(key)


SMALL = {"capacity": 8, "segment_bytes": 256, "segments": 4}
TIGHT = {"capacity": 40, "segment_bytes": 256, "segments": 3}  # full of bytes before entries


def _run_with_one_cut(sizes, seed, cut_at, actions=60):
    """Run a script with one cut; says whether the script got as far as the cut."""
    draw = Draw(seed)
    files = CutFiles(Draw(seed * 1000 + cut_at))
    meter = Meter(files, draw, **sizes)
    files.cut_at = cut_at
    try:
        for _ in range(actions):
            meter.act()
    except PowerCut:
        files.restart()
        meter.open()
        meter.model.check(meter.journal, meter.cut)
        for _ in range(10):
            meter.act()
        meter.model.check(meter.journal)
        return True
    assert files.steps < cut_at
    return False


def _cut_everywhere(sizes, seed, stride=1):
    cut_at = 1
    while _run_with_one_cut(sizes, seed, cut_at):
        cut_at += stride
    assert cut_at > 60


def test_power_cut_at_every_step_loses_nothing_that_was_stored():
    _cut_everywhere(SMALL, 1)


def test_power_cut_at_every_step_of_a_ring_full_of_bytes_loses_nothing_that_was_stored():
    _cut_everywhere(TIGHT, 2)


def test_many_cuts_in_a_row_lose_nothing_that_was_stored():
    for seed in range(4):
        draw = Draw(seed)
        files = CutFiles(Draw(seed + 77))
        meter = Meter(files, draw, **(SMALL if seed & 1 else TIGHT))
        for _ in range(60):
            files.cut_at = files.steps + 1 + draw.below(40)
            try:
                while True:
                    meter.act()
            except PowerCut:
                files.restart()
                while True:  # a cut while opening changes nothing: opening writes nothing
                    steps = files.steps
                    meter.open()
                    assert files.steps == steps
                    break
                meter.model.check(meter.journal, meter.cut)


def _journal(files=None, **sizes):
    return Journal("j", files=files or CutFiles(Draw(0)), **(sizes or SMALL))


def test_entries_come_oldest_first_and_removed_ones_do_not():
    files = CutFiles(Draw(0))
    journal = _journal(files)
    for n in range(5):
        assert journal.append(bytes([n + 1]), bytes([n]) * n) == 0
    assert journal.remove(b"\x02")
    assert not journal.remove(b"\x02")
    assert not journal.remove(b"\x99")
    wanted = [(bytes([n + 1]), bytes([n]) * n) for n in (0, 2, 3, 4)]
    assert list(journal) == wanted
    journal.sync()
    assert list(_journal(files)) == wanted


def test_full_ring_drops_the_oldest_and_counts_them():
    for journal in (_journal(), RamJournal(8)):
        for n in range(8):
            assert journal.append(bytes([n]), b"") == 0
        assert journal.append(b"\x08", b"") == 1
        assert journal.append(b"\x09", b"") == 1
        assert journal.lost == 2
        assert len(journal) == 8
        assert [key[0] for key, _ in journal] == list(range(2, 10))


def test_count_moves_into_the_entry_that_reports_it_and_back_when_that_is_dropped():
    for files in (CutFiles(Draw(0)), None):

        def reopened(journal, files=files):
            return _journal(files, capacity=2, segment_bytes=256, segments=3) if files else journal

        journal = reopened(RamJournal(2))
        for n in range(5):
            journal.append(bytes([n]), b"")
        assert journal.lost == 3
        assert reopened(journal).lost == 3
        assert journal.append(b"\x05", b"reports 3", lost=3) == 1
        assert journal.lost == 1  # the one that had to go for it
        journal = reopened(journal)
        assert journal.lost == 1
        assert journal.append(b"\x06", b"") == 1
        assert journal.append(b"\x07", b"") == 1
        assert journal.lost == 1 + 1 + (1 + 3)
        assert reopened(journal).lost == 6
        journal.remove(b"\x07")
        assert journal.lost == 6


def test_reporting_more_than_was_lost_is_the_callers_error():
    for journal in (_journal(), RamJournal(8)):
        try:
            journal.append(b"k", b"", lost=1)
        except ValueError:
            assert len(journal) == 0
            continue
        raise AssertionError("taken")


def test_entries_that_never_fit_are_the_callers_error():
    journal = _journal()
    for key, record in ((b"", b""), (bytes(256), b""), (b"k", bytes(200))):
        try:
            journal.append(key, record)
        except ValueError:
            continue
        raise AssertionError(len(record))
    assert len(journal) == 0


def test_one_entry_that_is_never_removed_is_kept_in_a_bounded_number_of_files():
    files = CutFiles(Draw(0))
    journal = _journal(files)
    journal.append(b"stuck", b"never receipted")
    for n in range(500):
        journal.append(n.to_bytes(2, "big"), bytes(50))
        assert journal.remove(n.to_bytes(2, "big"))
        assert len(files.stored) <= SMALL["segments"] + 1
    assert list(journal) == [(b"stuck", b"never receipted")]
    assert list(_journal(files))[0] == (b"stuck", b"never receipted")
    assert journal.lost == 0


def test_long_outage_holds_what_the_files_hold_and_drops_in_order():
    files = CutFiles(Draw(0))
    journal = _journal(files, **TIGHT)
    dropped = 0
    for n in range(300):
        dropped += journal.append(n.to_bytes(2, "big"), bytes(20))
        assert len(files.stored) <= TIGHT["segments"] + 1
        keys = [int.from_bytes(key, "big") for key, _ in journal]
        assert keys == list(range(dropped, n + 1))
    assert journal.lost == dropped
    # 48 bytes an entry: five a segment, and three segments whose oldest has just gone.
    assert len(journal) >= 10


def test_appending_and_removing_while_iterating_is_allowed():
    for journal in (_journal(), RamJournal(8)):
        for n in range(4):
            journal.append(bytes([n]), b"")
        seen = []
        for key, _ in journal:
            seen.append(key[0])
            journal.remove(key)
            if key == b"\x01":
                journal.remove(b"\x02")
                journal.append(b"\x07", b"")
        assert seen == [0, 1, 3, 7]
        assert len(journal) == 0


def test_failed_write_leaves_the_journal_as_the_files_say():
    files = CutFiles(Draw(0))
    journal = _journal(files)
    journal.append(b"a", b"1")
    append = files.append

    def full(path, data):
        append(path, data[:7])
        raise OSError(28)

    files.append = full
    try:
        journal.append(b"b", b"2")
        raise AssertionError("stored")
    except OSError:
        pass
    files.append = append
    assert list(journal) == [(b"a", b"1")]
    journal.append(b"c", b"3")
    assert list(journal) == list(_journal(files)) == [(b"a", b"1"), (b"c", b"3")]


def test_rotten_record_costs_itself_alone():
    files = CutFiles(Draw(0))
    journal = _journal(files)
    for n in range(4):
        journal.append(bytes([n]), b"record")
    path = "j/00000000.seg"
    whole = files.stored[path]
    for at in range(len(whole)):
        files.stored[path] = whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]
        reopened = _journal(files)
        assert reopened.damaged == 1
        assert len(reopened) == 3, at
        reopened.append(b"new", b"x")
        assert len(_journal(files)) == 4
        del files.stored["j/00000001.seg"]


def test_entry_that_rots_while_open_is_counted_lost():
    files = CutFiles(Draw(0))
    journal = _journal(files)
    for n in range(3):
        journal.append(bytes([n]), b"record")
    whole = files.stored["j/00000000.seg"]
    files.stored["j/00000000.seg"] = whole[:24] + b"?" + whole[25:]
    assert [key[0] for key, _ in journal] == [1, 2]
    assert journal.lost == 1


def test_any_bytes_in_the_folder_open_without_an_error():
    draw = Draw(5)
    for _ in range(150):
        files = CutFiles(Draw(0))
        for n in range(draw.below(4)):
            size = draw.below(90)
            noise = [draw.below(3) if draw.below(2) else draw.below(256) for _ in range(size)]
            files.stored["j/%08x.seg" % n] = bytes(noise)
        files.stored["j/notes.txt"] = b"x"
        files.stored["j/zzzzzzzz.seg"] = b"x"
        journal = _journal(files)
        journal.append(b"key", b"record")
        assert list(_journal(files)) == [(b"key", b"record")]


def test_smaller_capacity_keeps_the_newest_and_counts_the_rest():
    files = CutFiles(Draw(0))
    journal = _journal(files)
    for n in range(6):
        journal.append(bytes([n]), b"")
    journal = _journal(files, capacity=2, segment_bytes=256, segments=4)
    assert [key[0] for key, _ in journal] == [4, 5]
    assert journal.lost == 4


def test_cell_cut_at_every_step_holds_the_old_or_the_new_value():
    for seed in range(6):
        cut_at = 1
        while True:
            files = CutFiles(Draw(seed * 100 + cut_at))
            cell = Cell("c", files)
            assert cell.read() is None
            files.cut_at = cut_at
            done = None
            try:
                for n in range(5):
                    trying = bytes([n]) * n
                    cell.write(trying)
                    done = trying
            except PowerCut:
                files.restart()
                again = Cell("c", files)
                assert again.read() in (done, trying)
                assert not again.damaged
                again.write(b"next")
                assert Cell("c", files).read() == b"next"
                cut_at += 1
                continue
            break
        assert cut_at == 5 * 4 + 1


def test_cell_whose_newer_file_rots_gives_the_value_before_and_says_so():
    files = CutFiles(Draw(0))
    cell = Cell("c", files)
    cell.write(b"one")
    cell.write(b"two")
    newest = files.stored["c.0"]
    for at in range(len(newest)):
        files.stored["c.0"] = newest[:at] + bytes([newest[at] ^ 1]) + newest[at + 1 :]
        assert cell.read() == b"one"
        assert cell.damaged
    for size in range(len(newest)):
        files.stored["c.0"] = newest[:size]
        assert cell.read() == b"one"
        assert cell.damaged


def test_counter_never_gives_a_number_twice():
    for seed in range(10):
        files = CutFiles(Draw(seed))
        given = []
        for cut_at in range(1, 40):
            files.cut_at = 1 + cut_at % 5
            try:
                given.append(Counter("boot", files).next())
            except PowerCut:
                pass
            files.restart()
        assert given == sorted(set(given))
        assert len(given) > 5


def test_counter_skips_what_a_damaged_file_may_have_held():
    for damaged in ("boot.0", "boot.1"):
        files = CutFiles(Draw(0))
        given = [Counter("boot", files).next() for _ in range(4)]
        assert given == [1, 2, 3, 4]
        files.stored[damaged] = b"\xff" * 18
        after = [Counter("boot", files).next() for _ in range(3)]
        assert after[0] > 4 and after == sorted(set(after))


def test_counter_without_a_whole_file_refuses_to_start_again():
    files = CutFiles(Draw(0))
    Counter("boot", files).next()
    files.stored["boot.1"] = b""
    try:
        Counter("boot", files).next()
    except StorageDamaged:
        return
    raise AssertionError("started again at 1")
