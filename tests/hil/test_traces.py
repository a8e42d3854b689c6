"""Reading recordings: the forms known, and one declared error for everything else."""

import contextlib
import gzip
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil import tables, traces
from hil.traces import TraceError, load_recording, parse_recording, read_recording

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "recordings.md"
NEIGHBOURS = Path(__file__).resolve().parents[3] / "shared" / "data" / "lv_neighbours"

METERS = b"meter,bus,phase,cable_m\nM1,34,L1,33.1\nM2,47,,\n"
VOLTAGE = b"hhmm,M1,M2\n00:00,230.1234,231\n00:01,229.9,\n00:02,230.0,231.5\n"
POWER = b"hhmm,M2,M1\n00:00,0.036,-1.5\n00:01,,0.0000005\n00:02,1e-3,2\n"
BUSBAR = (
    b"hhmm,Vbus_L1,Vbus_L2,Vbus_L3,P_trafo_kW,Q_trafo_kvar,Vsource_pu,losses_kW\n"
    b"00:00,252.1627,252.1641,252.1675,3.0474,1.0013,1.0500,0.0023\n"
    b"00:01,252.1629,,252.1679,3.0550,1.0038,1.0500,0.0024\n"
    b"00:02,252.1610,252.1633,252.1659,3.2390,1.0642,1.0500,0.0027\n"
)
GOOD = {
    "meters": ("a_meters.csv", METERS),
    "voltage": ("a_V.csv", VOLTAGE),
    "power": ("a_P.csv", POWER),
    "busbar": ("a_busbar.csv", BUSBAR),
}


def with_part(part: str, blob: bytes) -> dict[str, tuple[str, bytes]]:
    name = GOOD[part][0] if part in GOOD else f"a_{part}.csv"
    return {**GOOD, part: (name, blob)}


def neighbours(name: str) -> traces.Recording:
    if not NEIGHBOURS.is_dir():
        pytest.skip("the recordings of LV neighbours are not beside the project (../shared/data)")
    return load_recording(NEIGHBOURS, name)


# -- what is read -----------------------------------------------------------------------------


def test_numbers_are_thousandths_in_the_order_of_the_meter_list() -> None:
    recording = parse_recording(GOOD)
    assert [meter.name for meter in recording.meters] == ["M1", "M2"]
    assert recording.voltage_mv == ((230123, 231000), (229900, None), (230000, 231500))
    assert recording.power_mw == ((-1_500_000, 36_000), (0, None), (2_000_000, 1_000))


def test_phase_and_cable_that_are_not_given_are_none() -> None:
    first, second = parse_recording(GOOD).meters
    assert (first.bus, first.phase, first.cable_m) == ("34", "L1", 33.1)
    assert (second.bus, second.phase, second.cable_m) == ("47", None, None)


def test_hhmm_times_are_minutes_of_the_given_day_in_utc() -> None:
    recording = parse_recording(GOOD, date="2016-06-07")
    assert (recording.start_s, recording.step_s, recording.rounds) == (1465257600, 60, 3)
    assert recording.time_s(2) == 1465257720
    assert parse_recording(GOOD).start_s == 1465171200


def test_full_times_cross_midnight() -> None:
    rows = b"2016-06-06 23:45,1,2\n2016-06-07 00:00,1,2\n2016-06-07 00:15:00,1,2\n"
    files = {
        "meters": ("m", METERS),
        "voltage": ("v", b"time,M1,M2\n" + rows),
        "power": ("p", b"time,M1,M2\n" + rows),
    }
    recording = parse_recording(files)
    assert (recording.start_s, recording.step_s) == (1465256700, 900)


def test_head_end_keeps_voltages_power_and_losses() -> None:
    busbar = parse_recording(GOOD).busbar
    assert busbar is not None
    assert busbar[0] == traces.Busbar((252163, 252164, 252168), 3_047_400, 1_001_300, 2_300)
    assert busbar[1].voltage_mv == (252163, None, 252168)


def test_head_end_and_reactive_power_may_be_absent() -> None:
    files = {part: GOOD[part] for part in ("meters", "voltage", "power")}
    recording = parse_recording(files)
    assert recording.busbar is None
    assert recording.reactive_mvar is None
    reactive = parse_recording({**files, "reactive": ("a_Q.csv", POWER)}).reactive_mvar
    assert reactive == recording.power_mw


def test_generators_of_the_head_end_table_are_no_meters() -> None:
    head = b"hhmm,PV1_kW,trafo_P_kW,trafo_Q_kvar\n00:00,1,2,3\n00:01,1,2,3\n00:02,1,2,3\n"
    files = with_part("busbar", head) | {"meters": ("m", METERS + b"PV1,9,,\n")}
    recording = parse_recording(files)
    assert [meter.name for meter in recording.meters] == ["M1", "M2"]
    assert recording.busbar is not None
    assert recording.busbar[0] == traces.Busbar(None, 2_000_000, 3_000_000, None)


def test_byte_order_mark_crlf_spaces_and_quotes_are_read() -> None:
    blob = VOLTAGE.replace(b"\n", b"\r\n").replace(b",230.0,", b', "230.0", ')
    assert parse_recording(with_part("voltage", b"\xef\xbb\xbf" + blob)) == parse_recording(GOOD)


def test_folder_is_read_with_plain_and_compressed_files(tmp_path: Path) -> None:
    for part, ending in (("meters", "meters"), ("voltage", "V"), ("power", "P")):
        blob = GOOD[part][1]
        if part == "voltage":
            (tmp_path / f"a_{ending}.csv.gz").write_bytes(gzip.compress(blob))
        else:
            (tmp_path / f"a_{ending}.csv").write_bytes(blob)
    recording = load_recording(tmp_path, "a")
    assert recording.busbar is None
    (tmp_path / "a_busbar.csv").write_bytes(BUSBAR)
    assert load_recording(tmp_path, "a") == parse_recording(GOOD, name="a")


def test_sample_day_has_24_meters_on_three_phases_and_a_head_end() -> None:
    day = traces.sample_day()
    assert (len(day.meters), day.rounds, day.step_s) == (24, 1440, 60)
    phases = [meter.phase for meter in day.meters]
    assert [phases.count(phase) for phase in ("L1", "L2", "L3")] == [8, 8, 8]
    assert day.busbar is not None
    for row, head in zip(day.power_mw, day.busbar, strict=True):
        assert head.power_mw is not None
        assert head.losses_mw is not None
        known = [mw for mw in row if mw is not None]
        assert len(known) == 24
        # The head end's figures have four decimals of a kW.
        assert abs(head.power_mw - head.losses_mw - sum(known)) <= 100


def test_example_of_the_guide_is_read(tmp_path: Path) -> None:
    blocks = re.findall(
        r"`(street_\w+\.csv)`[^\n]*\n\n```csv\n(.*?)```", GUIDE.read_text(), re.DOTALL
    )
    assert len(blocks) == 5
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    street = load_recording(tmp_path, "street")
    assert (len(street.meters), street.rounds, street.step_s) == (3, 3, 900)
    assert street.voltage_mv[1] == (231_020, None, 229_870)
    assert street.reactive_mvar is not None
    assert street.busbar is not None
    power = tmp_path / "street_P.csv"
    power.write_text(power.read_text().replace("0.097", "NaN"))
    with pytest.raises(TraceError) as caught:
        load_recording(tmp_path, "street")
    assert str(caught.value) in " ".join(GUIDE.read_text(encoding="utf-8").split())


# -- what is refused --------------------------------------------------------------------------

BAD = {
    "empty file": ("voltage", b"", "a_V.csv: is empty"),
    "header only": ("voltage", b"hhmm,M1,M2\n", "a header but no rows"),
    "one row": ("voltage", b"hhmm,M1,M2\n00:00,1,2\n", "one row only"),
    "unknown time column": ("voltage", b"t,M1,M2\n00:00,1,2\n00:01,1,2\n", "first column is 't'"),
    "meter missing": ("voltage", b"hhmm,M1\n00:00,1\n00:01,1\n00:02,1\n", "no column for meter M2"),
    "meter too many": (
        "power",
        b"hhmm,M1,M2,M3\n00:00,1,1,1\n00:01,1,1,1\n00:02,1,1,1\n",
        "column 'M3' is no meter",
    ),
    "column twice": ("power", b"hhmm,M1,M1\n00:00,1,1\n", "'M1' stands there twice"),
    "short row": ("power", POWER.replace(b"2\n", b"2\n00:03,1\n"), "line 5: 2 cells where"),
    "long row": ("power", POWER.replace(b",0.036", b",1,0.036"), "line 2: 4 cells where"),
    "text": ("power", POWER.replace(b"0.036", b"?"), "line 2, column M2: '?' is not a number"),
    "not a number": ("power", POWER.replace(b"0.036", b"NaN"), "'NaN' is not a number"),
    "infinity": ("power", POWER.replace(b"0.036", b"inf"), "'inf' is not a number"),
    "lone point": ("power", POWER.replace(b"0.036", b"."), "'.' is not a number"),
    "exponent only": ("power", POWER.replace(b"0.036", b"e5"), "'e5' is not a number"),
    "digits of another script": ("power", POWER.replace(b"0.036", "٣".encode()), "not a number"),
    "decimal comma": ("power", POWER.replace(b"0.036", b'"0,036"'), "'0,036' is not a number"),
    "huge exponent": ("power", POWER.replace(b"0.036", b"1e99"), "outside -1000000 to 1000000"),
    "watts for kilowatts": (
        "power",
        POWER.replace(b"0.036", b"1000001"),
        "check the column's unit",
    ),
    "negative voltage": ("voltage", VOLTAGE.replace(b"231\n", b"-1\n"), "outside 0 to 1000000"),
    "time falls": ("voltage", VOLTAGE.replace(b"00:02", b"00:00"), "does not come after the row"),
    "time repeats": ("voltage", VOLTAGE.replace(b"00:02", b"00:01"), "line 4, column hhmm"),
    "time uneven": ("voltage", VOLTAGE.replace(b"00:02", b"00:03"), "120 s after the row before"),
    "no time": ("voltage", VOLTAGE.replace(b"00:02", b"24:00"), "'24:00' is not HH:MM"),
    "other rows": ("power", POWER.replace(b"00:02", b"00:03"), "where a_V.csv has '00:02'"),
    "fewer rows": ("power", POWER.replace(b"00:02,1e-3,2\n", b""), "2 rows where a_V.csv has 3"),
    "not UTF-8": ("power", b"\xff\xfe" + POWER, "byte 0 is not UTF-8"),
    "zero byte": ("power", POWER + b"\x00", "holds a zero byte"),
    "open quote": ("power", POWER + b'"00:03', "not CSV"),
    "unknown meter column": ("meters", METERS.replace(b"cable_m", b"cable_ft"), "'cable_ft'"),
    "no bus column": ("meters", b"meter\nM1\nM2\n", "no column 'bus'"),
    "no meter column": ("meters", b"bus\n1\n2\n", "no column 'meter'"),
    "meter twice": (
        "meters",
        METERS + b"M1,9,L1,4\n",
        "line 4, column meter: M1 stands there twice",
    ),
    "topic character in a name": ("meters", METERS.replace(b"M1", b"M/1"), "cannot name a meter"),
    "bus without a name": ("meters", METERS.replace(b",34,", b",,"), "cannot name a bus"),
    "unknown phase": ("meters", METERS.replace(b"L1", b"L4"), "'L4' is no phase"),
    "negative cable": ("meters", METERS.replace(b"33.1", b"-3"), "outside 0 to"),
    "unknown head-end column": (
        "busbar",
        BUSBAR.replace(b"Vsource_pu", b"U"),
        "unknown column 'U'",
    ),
    "two of three voltages": (
        "busbar",
        BUSBAR.replace(b"Vbus_L3", b"losses_kW").replace(b"pu,losses_kW", b"pu,G_kW"),
        "2 of 3 busbar voltages",
    ),
    "no head-end power": ("busbar", BUSBAR.replace(b"P_trafo_kW", b"PV1_kW"), "'P_trafo_kW'"),
    "head-end power twice": (
        "busbar",
        BUSBAR.replace(b"Vsource_pu", b"trafo_P_kW"),
        "P_trafo_kW stands there twice",
    ),
    "text in a column that is not kept": (
        "busbar",
        BUSBAR.replace(b"1.0500,0.0027", b"high,0.0027"),
        "line 4, column Vsource_pu: 'high'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_table_is_refused_with_file_place_and_remedy(case: str) -> None:
    part, blob, words = BAD[case]
    with pytest.raises(TraceError) as caught:
        parse_recording(with_part(part, blob))
    message = str(caught.value)
    assert words in message
    assert message.startswith(GOOD[part][0])
    assert ";" in message, "says what to do"
    assert "\n" not in message


@pytest.mark.parametrize(
    "stamp", ["2016-06-06", "2016-13-06 00:00", "2016-W23-1 00:00", "1969-12-31 23:59", "06:00"]
)
def test_bad_full_time_is_refused(stamp: str) -> None:
    blob = f"time,M1,M2\n{stamp},1,2\n2016-06-06 00:15,1,2\n".encode()
    with pytest.raises(TraceError, match="is not YYYY-MM-DD HH:MM"):
        parse_recording(with_part("voltage", blob))


@pytest.mark.parametrize("date", ["", "today", "2016-02-30", "20160606", "1969-12-31"])
def test_bad_date_is_refused(date: str) -> None:
    with pytest.raises(TraceError, match="YYYY-MM-DD"):
        parse_recording(GOOD, date=date)


@pytest.mark.parametrize("part", ["meters", "voltage", "power"])
def test_missing_table_is_refused(part: str) -> None:
    with pytest.raises(TraceError, match=f"needs a {part} table"):
        parse_recording({name: blob for name, blob in GOOD.items() if name != part})


def test_list_of_generators_only_is_refused() -> None:
    head = b"hhmm,M1_kW,M2_kW,P_trafo_kW\n00:00,1,1,2\n00:01,1,1,2\n00:02,1,1,2\n"
    none = b"hhmm,X\n00:00,1\n00:01,1\n00:02,1\n"
    with pytest.raises(TraceError, match="no meter, only generators"):
        parse_recording(with_part("busbar", head) | {"voltage": ("v", none), "power": ("p", none)})


def test_missing_file_names_the_folder_and_the_name_wanted(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"no file a_meters\.csv or a_meters\.csv\.gz in"):
        load_recording(tmp_path, "a")


def test_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path, "zero\x00byte.csv"):
        with pytest.raises(TraceError, match="cannot be read"):
            read_recording(path, path, path)


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(METERS)
    for blob in (packed[:-9], b"plain text", packed[:12] + b"\xff" * 9):
        path = tmp_path / "a_meters.csv.gz"
        path.write_bytes(blob)
        with pytest.raises(TraceError, match="damaged gzip"):
            read_recording(path, path, path)


# -- sizes ------------------------------------------------------------------------------------


def refused(change: Callable[[pytest.MonkeyPatch], None], words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        change(patch)
        with pytest.raises(TraceError, match=words):
            parse_recording(GOOD)


def test_more_bytes_columns_or_cells_than_the_bound_are_refused() -> None:
    refused(lambda patch: patch.setattr(tables, "MAX_FILE_BYTES", 40), "larger than")
    refused(lambda patch: patch.setattr(tables, "MAX_METERS", 2), "more than 2 columns")
    refused(lambda patch: patch.setattr(tables, "MAX_CELLS", 8), "more than 8 cells")


def test_line_of_commas_is_refused_before_it_is_split() -> None:
    with pytest.raises(TraceError, match="cells; split it by days"):
        parse_recording(with_part("voltage", b"," * (tables.MAX_CELLS + 1)))


def test_compressed_bomb_is_unpacked_no_further_than_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_FILE_BYTES", 1000)
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(b"0" * 1_000_000))
    assert len(tables.read_bytes(path)) == 1001
    with pytest.raises(TraceError, match="larger than"):
        read_recording(path, path, path)


# -- any bytes --------------------------------------------------------------------------------

PARTS = st.sampled_from(["meters", "voltage", "power", "reactive", "busbar"])
PACKED = gzip.compress(METERS, mtime=0)
LIKELY = st.text(alphabet='hhm:,0123456789.-eE\n\r" M1L2_kWNaN\u0663', max_size=120)


@given(PARTS, st.binary(max_size=200) | LIKELY.map(str.encode))
def test_any_bytes_give_a_recording_or_a_trace_error(part: str, blob: bytes) -> None:
    with contextlib.suppress(TraceError):
        parse_recording(with_part(part, blob))


@given(st.data())
def test_any_damage_to_a_good_table_gives_a_recording_or_a_trace_error(data: st.DataObject) -> None:
    part = data.draw(st.sampled_from(sorted(GOOD)))
    blob = bytearray(GOOD[part][1])
    at = data.draw(st.integers(0, len(blob)))
    blob[at : at + data.draw(st.integers(0, 6))] = data.draw(
        st.binary(max_size=6) | LIKELY.map(str.encode)
    )
    try:
        recording = parse_recording(with_part(part, bytes(blob)))
    except TraceError:
        return
    for row in (*recording.voltage_mv, *recording.power_mw):
        assert all(cell is None or type(cell) is int for cell in row)


@given(st.binary(max_size=100) | st.binary(max_size=40).map(lambda tail: PACKED[:20] + tail))
def test_any_compressed_file_gives_bytes_or_a_trace_error(
    tmp_path_factory: pytest.TempPathFactory, blob: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv.gz"
    path.write_bytes(blob)
    try:
        tables.read_bytes(path)
    except TraceError:
        pass


@given(
    st.floats(min_value=-1e6, max_value=1e6).filter(lambda kw: kw == 0 or abs(kw) > 1e-6),
    st.sampled_from(["{:.3f}", "{:.6f}", "{:e}", "{:.1e}"]),
)
def test_numbers_are_rounded_as_the_decimal_says(kilowatts: float, form: str) -> None:
    text = form.format(kilowatts)
    power = f"hhmm,M1,M2\n00:00,{text},0\n00:01,0,0\n00:02,0,0\n".encode()
    value = parse_recording(with_part("power", power)).power_mw[0][0]
    assert value is not None
    assert math.isclose(value, float(text) * 1e6, rel_tol=1e-12, abs_tol=0.51)


# -- recordings beside the project ------------------------------------------------------------


@pytest.mark.parametrize("name", ["eulv_A", "eulv_B"])
def test_european_lv_feeder_is_read(name: str) -> None:
    recording = neighbours(name)
    assert (len(recording.meters), recording.rounds, recording.step_s) == (55, 1440, 60)
    assert recording.meters[0] == traces.Meter("M01", "34", "L1", 33.1)
    assert recording.power_mw[0][:3] == (36_000, 44_000, 54_000)
    assert all(None not in row for row in recording.voltage_mv)


def test_simbench_week_is_read_without_its_generators() -> None:
    recording = neighbours("simbench_rural2_s1")
    assert (len(recording.meters), recording.rounds, recording.step_s) == (103, 672, 900)
    assert recording.start_s == 1465171200
    assert recording.reactive_mvar is not None
    assert recording.reactive_mvar[0][0] == 23_100
    assert recording.busbar is not None
    assert recording.busbar[0].power_mw == 23_176_600
