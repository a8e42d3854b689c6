"""The socket: framing, order, limits, what is answered and what is not."""

import socket
import stat
import threading
from hashlib import sha256

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.engine.comet.server import Frames, Server, ServerError
from ledger.protobuf import MalformedMessage
from tests.ledger.engine import driver as d
from tests.ledger.engine.plain import plain_node, served


@pytest.fixture
def running(tmp_path):
    with served(plain_node(), tmp_path) as running:
        yield running


def echo(text: bytes) -> bytes:
    return d.frame(d.ECHO, d.encode([(1, text)]))


# framing


def test_requests_split_at_every_byte_are_answered(running):
    connection = running.connect().query
    data = echo(b"one") + d.frame(d.FLUSH) + echo(b"x" * 200)
    other = running.connect().query
    for cut in range(1, len(data)):
        connection.send(data[:cut])
        other.call(d.ECHO)  # the server has read the first part by then
        connection.send(data[cut:])
        assert connection.read() == (d.ECHO[1], {1: [b"one"]})
        assert connection.read() == (d.FLUSH[1], {})
        assert connection.read() == (d.ECHO[1], {1: [b"x" * 200]})


def test_requests_that_come_byte_by_byte_are_answered(running):
    connection = running.connect().query
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    for byte in echo(b"slowly") + d.frame(d.FLUSH):
        connection.send(bytes([byte]))
    assert connection.read() == (d.ECHO[1], {1: [b"slowly"]})


def test_joined_requests_are_answered_in_their_order(running):
    connection = running.connect().query
    texts = [str(i).encode() for i in range(1000)]
    connection.send(b"".join(echo(text) for text in texts))
    assert [connection.read() for _ in texts] == [(d.ECHO[1], {1: [text]}) for text in texts]


@given(st.lists(st.binary(max_size=300), max_size=6), st.data())
def test_frames_are_the_same_however_the_stream_is_cut(requests, data):
    stream = b"".join(d.varint(len(request)) + request for request in requests)
    frames, found, at = Frames(300), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        frames.feed(stream[at : at + size])
        at += size
        while (frame := frames.next()) is not None:
            found.append(frame)
        assert frames.idle
    assert found == requests


@given(st.binary(max_size=100))
def test_any_stream_gives_frames_or_one_error(data):
    frames = Frames(50)
    frames.feed(data)
    try:
        while (frame := frames.next()) is not None:
            assert len(frame) <= 50
    except MalformedMessage:
        pass


@pytest.mark.parametrize("length", ["81808020", "ff" * 9 + "01", "ff" * 50, "80" * 11])
def test_hostile_length_closes_that_connection_only(running, length, caplog):
    one, other = running.connect(), running.connect()
    one.query.send(echo(b"before") + bytes.fromhex(length))
    assert one.query.read() == (d.ECHO[1], {1: [b"before"]})
    with pytest.raises(d.Closed):
        one.query.read()
    assert "broken" in caplog.text
    assert other.query.call(d.ECHO, d.encode([(1, b"still here")])) == {1: [b"still here"]}
    assert one.mempool.call(d.ECHO) == {}
    assert running.failures == []


def test_longest_request_is_answered_and_a_longer_one_is_not(tmp_path):
    with served(plain_node(), tmp_path, max_message_bytes=1000) as running:
        one, other = running.connect().query, running.connect().query
        fits = b"x" * (1000 - 2 * 3)
        assert len(echo(fits)) == 1002
        assert one.call(d.ECHO, d.encode([(1, fits)])) == {1: [fits]}
        other.send(echo(fits + b"x"))
        with pytest.raises(d.Closed):
            other.read()


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"", id="empty"),
        pytest.param(d.always(4, b""), id="SetOption, which ABCI 2.0 has not"),
        pytest.param(d.always(99, b""), id="unknown"),
        pytest.param(d.varint(8) + b"\x01", id="a number"),
        pytest.param(d.always(1, b"") + d.always(2, b""), id="two at once"),
        pytest.param(d.always(8, b"\x0a\x05x"), id="cut off inside"),
        pytest.param(d.always(3, d.always(4, b"\xff")), id="text that is not UTF-8"),
    ],
)
def test_broken_request_closes_that_connection_only(running, request_):
    one, other = running.connect().query, running.connect().query
    one.send(d.varint(len(request_)) + request_)
    with pytest.raises(d.Closed):
        one.read()
    assert other.call(d.ECHO) == {}
    assert running.failures == []


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["raw", "framed", "request"]), st.binary(max_size=120), st.data())
def test_any_bytes_leave_the_server_serving(running, form, data, draw):
    if form == "request":  # a message of ours, with hostile fields inside
        number = draw.draw(st.sampled_from([1, 2, 6, 8, 12, 13, 14, 15, 17, 18, 19]))
        data = d.always(number, data)
    if form != "raw":
        data = d.varint(len(data)) + data
    connection = d.Connection(running.server.address)
    connection.send(data)
    connection.close()
    again = d.Connection(running.server.address)
    assert again.call(d.ECHO, d.encode([(1, b"there")])) == {1: [b"there"]}
    again.close()
    assert running.failures == []


def test_reader_that_is_slow_holds_up_nobody(running):
    slow, quick = running.connect().query, running.connect().query
    text = b"x" * 60_000
    sender = threading.Thread(target=slow.send, args=(echo(text) * 100,))
    sender.start()  # 6 MB of answers that nobody reads yet
    for _ in range(20):
        assert quick.call(d.ECHO) == {}
    for _ in range(100):
        assert slow.read() == (d.ECHO[1], {1: [text]})
    sender.join()


def test_connections_beyond_the_most_are_refused(running):
    held = [running.connect() for _ in range(4)]
    assert held[-1].consensus.call(d.ECHO) == {}
    extra = d.Connection(running.server.address)
    with pytest.raises(d.Closed):
        extra.call(d.ECHO)
    extra.close()
    held[0].close()
    assert held[1].query.call(d.ECHO) == {}


# what is not answered


@pytest.mark.parametrize("where", ["finalize", "commit", "prepare", "process", "check"])
def test_failure_inside_closes_all_connections_without_an_answer(tmp_path, where):
    with served(plain_node(), tmp_path) as running:
        driver = running.connect()
        tx = b"fail " + where.encode()
        calls = {
            "prepare": lambda: driver.prepare([tx]),
            "process": lambda: driver.process([tx]),
            "check": lambda: driver.check_tx(tx),
        }
        with pytest.raises(d.Closed):
            calls.get(where, lambda: driver.decide([tx]))()
        for connection in (driver.query, driver.snapshot, driver.mempool, driver.consensus):
            with pytest.raises(d.Closed):
                connection.call(d.ECHO)
        running.server.stop()
        assert [str(failure) for failure in running.failures] == [f"{where} failed"]
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            d.Connection(running.server.address)


def test_mismatch_is_told_before_the_server_ends(tmp_path):
    with served(plain_node(), tmp_path) as running:
        driver = running.connect()
        with pytest.raises(d.Refusal, match=r"ABCI 1\.0\.0.*gridwitness cometbft install"):
            driver.info("1.0.0")
        with pytest.raises(d.Closed):
            driver.mempool.call(d.ECHO)
        running.server.stop()
        assert len(running.failures) == 1


def test_failure_of_a_callback_after_commit_is_not_answered(tmp_path):
    def broken(height, decision):
        raise RuntimeError(f"after {height}")

    with served(plain_node(committed=broken), tmp_path) as running:
        driver = running.connect()
        with pytest.raises(d.Closed):
            driver.decide([b"tx"])
        running.server.stop()
        assert [str(failure) for failure in running.failures] == ["after 1"]


# the address


def test_socket_is_its_owners_only_and_goes_with_the_server(running, tmp_path):
    path = tmp_path / "app.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    running.server.stop()
    assert not path.exists()


def test_second_server_on_a_live_socket_is_refused(running, tmp_path):
    second = Server(plain_node(), running.server.address, failed=lambda _: None)
    with pytest.raises(ServerError, match="served already"):
        second.start()
    second.stop()
    assert running.connect().query.call(d.ECHO) == {}


def test_socket_that_a_killed_server_left_is_taken_over(tmp_path):
    path = tmp_path / "app.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with served(plain_node(), tmp_path) as running:
        assert running.connect().query.call(d.ECHO) == {}


def test_file_that_is_no_socket_is_not_removed(tmp_path):
    path = tmp_path / "app.sock"
    path.write_bytes(b"precious")
    with pytest.raises(ServerError, match="no socket"):
        Server(plain_node(), f"unix://{path}", failed=lambda _: None).start()
    assert path.read_bytes() == b"precious"


def test_socket_of_a_later_server_is_left(tmp_path):
    path = tmp_path / "app.sock"
    with served(plain_node(), tmp_path) as first:
        path.rename(tmp_path / "moved")
        with served(plain_node(), tmp_path) as second:
            first.server.stop()
            assert second.connect().query.call(d.ECHO) == {}


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("/run/app.sock", "no address"),
        ("unix://", "no address"),
        ("tcp://127.0.0.1", "no address"),
        ("tcp://127.0.0.1:99999", "no address"),
        ("tcp://0.0.0.0:0", "other machines"),
        ("tcp://192.0.2.1:26658", "other machines"),
        ("unix:///nowhere/at/all/app.sock", "No such file"),
        ("unix:///" + "x" * 200, "too long"),
    ],
)
def test_wrong_address_is_named(address, why):
    with pytest.raises(ServerError, match=why):
        Server(plain_node(), address, failed=lambda _: None).start()


def test_socket_below_a_long_path_is_served_and_replaced(tmp_path, monkeypatch):
    """A socket's address has 107 bytes, folders have more; CometBFT is told a relative path."""
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as killed:
        monkeypatch.chdir(folder)
        killed.bind("app.sock")
    server = Server(plain_node(), f"unix://{folder}/app.sock", failed=lambda _: None)
    server.start()
    driver = d.Connection("unix://app.sock")
    assert driver.call(d.ECHO) == {}
    driver.close()
    second = Server(plain_node(), f"unix://{folder}/app.sock", failed=lambda _: None)
    with pytest.raises(ServerError, match="is served already"):
        second.start()
    server.stop()
    assert list(folder.iterdir()) == []


def test_tcp_on_loopback_is_served(tmp_path):
    with served(plain_node(), tmp_path, "tcp://127.0.0.1:0") as running:
        assert running.connect().query.call(d.ECHO) == {}
        second = Server(plain_node(), running.server.address, failed=lambda _: None)
        with pytest.raises(ServerError, match="in use"):
            second.start()


def test_server_that_was_never_started_stops():
    Server(plain_node(), "unix:///nowhere", failed=lambda _: None).stop()


def test_connections_are_served_while_the_lock_is_free_and_wait_while_it_is_held(running):
    driver = running.connect()
    with running.node.lock:
        driver.query.send(echo(b"waits"))
        driver.query.socket.settimeout(0.05)
        with pytest.raises(TimeoutError):
            driver.query.socket.recv(1)
    driver.query.socket.settimeout(20)
    data = driver.query.socket.recv(100)
    assert data.endswith(b"waits")


def test_two_engines_at_once_are_served_each(running):
    one, other = running.connect(), running.connect()
    for i in range(10):
        assert one.query.call(d.ECHO, d.encode([(1, b"%d" % i)])) == {1: [b"%d" % i]}
        assert other.query.call(d.ECHO, d.encode([(1, b"-%d" % i)])) == {1: [b"-%d" % i]}


def test_plain_node_reaches_the_same_hash_as_its_application(tmp_path):
    node = plain_node()
    with served(node, tmp_path) as running:
        block = running.connect().block([b"a", b"b"])
    assert block.app_hash == sha256(sha256(b"empty").digest() + b"ab").digest()
