"""What a client can do to a connection: be slow, be greedy, talk nonsense, go away. The server stays, and stays clear."""

from __future__ import annotations

import socket
import time

import msgspec
import pytest

from pondkeeper.server.bounds import Bounds
from tests.server.conftest import MakeServed, Served, read_all
from tests.support.keeper import wait_until

ONE = b'{"sql": "one"}'


def code_of(answer: bytes) -> str:
    """The code of the error in a raw answer."""
    return str(msgspec.json.decode(answer.split(b"\r\n\r\n", 1)[1])["error"]["code"])


def still_serves(served: Served) -> bool:
    with served.client() as client:
        return client.post("/v1/query", json={"sql": "one"}).status_code == 200


@pytest.mark.parametrize(
    "sent", [b"", b"POST /v1/query HTTP/1.1\r\nHost: loc", b"\r\n\r\n", b"GET /health/live HTTP/1.1\r\n"]
)
def test_head_that_does_not_come_is_not_waited_for(hasty: Served, sent: bytes) -> None:
    """A connection that sends no head, or part of one, is closed when its time is over; with 408 if it had begun."""
    began = time.monotonic()
    with hasty.connect() as connection:
        connection.sendall(sent)
        answer = read_all(connection)
    assert 0.45 < time.monotonic() - began < 15
    assert (b" 408 " in answer) == bool(sent)


def test_head_in_drops_is_not_waited_for(hasty: Served) -> None:
    """A byte now and then does not extend the time for the head."""
    with hasty.connect() as connection:
        answer = _drip(connection, b"GET /health/live HTTP/1.1\r\nX: " + b"y" * 200)
    assert b" 408 " in answer
    assert code_of(answer) == "request_too_slow"
    assert still_serves(hasty)


def test_body_in_drops_is_not_waited_for(hasty: Served) -> None:
    """A byte now and then does not extend the time for the body."""
    with hasty.connect() as connection:
        connection.sendall(hasty.request(b"", "/v1/query", "Content-Length: 5000"))
        answer = _drip(connection, b"x" * 400)
    assert b" 408 " in answer
    assert code_of(answer) == "request_too_slow"


def _drip(connection: socket.socket, data: bytes) -> bytes:
    """Send byte after byte until the server answers."""
    connection.settimeout(0.02)
    for byte in data:
        try:
            connection.send(bytes([byte]))
            return connection.recv(65536)
        except TimeoutError:
            continue
    raise AssertionError("the server took it all")


def test_body_that_stops_half_way_costs_only_its_connection(hasty: Served) -> None:
    """A client that sends half a body and goes away has asked nothing."""
    with hasty.connect() as connection:
        connection.sendall(hasty.request(ONE)[:-3])
    assert still_serves(hasty)
    assert len(hasty.database.requests) == 1


def test_idle_connection_is_closed(hasty: Served) -> None:
    """After an answer a connection may idle for its time, and is then closed without a word."""
    with hasty.connect() as connection:
        connection.sendall(hasty.request(ONE))
        assert b" 200 " in connection.recv(65536)
        time.sleep(0.15)
        connection.sendall(hasty.request(ONE))
        assert b" 200 " in connection.recv(65536)
        assert connection.recv(65536) == b""


def test_long_query_outlives_the_patience_for_idleness(hasty: Served) -> None:
    """The bounds are on the client's side of things: a query may take longer than all of them."""
    with hasty.client() as client:
        assert client.post("/v1/query", json={"sql": "wait 1.5"}).status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"y" * 5000 + b"\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 101 + b"\r\n",
        b"GET /health/live HTTP/1.1\r\nX: " + b"y" * 5000,
        b"GET /" + b"x" * 5000,
    ],
)
def test_head_that_is_too_large_is_refused(hasty: Served, head: bytes) -> None:
    """Neither a URL, nor a header, nor many of them can fill the memory, whether they end or not."""
    with hasty.connect() as connection:
        connection.sendall(head)
        answer = read_all(connection)
    assert b" 431 " in answer
    assert code_of(answer) == "head_too_large"


def test_body_that_is_too_large_is_refused_before_it_is_sent(hasty: Served) -> None:
    """A Content-Length above the limit is refused at once, and `100 Continue` is not said."""
    with hasty.connect() as connection:
        connection.sendall(hasty.request(b"", "/v1/query", "Content-Length: 10001", "Expect: 100-continue"))
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert code_of(answer) == "body_too_large"


def test_an_answer_before_the_body_says_that_the_connection_ends(served: Served) -> None:
    """A client that sends head and body apart, and is refused by its head, does not use the connection again."""
    with served.connect() as connection:
        connection.sendall(b"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 14\r\n\r\n")
        answer = read_all(connection)
    assert b" 401 " in answer
    assert b"connection: close\r\n" in answer
    with served.connect() as connection:  # the positive control: a request that is all there keeps its connection
        connection.sendall(b"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 14\r\n\r\n" + ONE)
        assert b"connection: close" not in connection.recv(65536)


def test_body_of_allowed_size_is_asked_for(hasty: Served) -> None:
    """A client that waits for `100 Continue` gets it."""
    with hasty.connect() as connection:
        connection.sendall(hasty.request(b"", "/v1/query", f"Content-Length: {len(ONE)}", "Expect: 100-continue"))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(ONE)
        assert b" 200 " in connection.recv(65536)


@pytest.mark.parametrize("chunk", [b"2710\r\n" + b" " * 10_000 + b"\r\n", b"1\r\n \r\n" * 5000])
def test_chunked_body_that_is_too_large_is_refused(hasty: Served, chunk: bytes) -> None:
    """A body without a Content-Length ends at the limit, in large chunks and in small ones."""
    with hasty.connect() as connection:
        connection.sendall(hasty.request(b"", "/v1/query", "Transfer-Encoding: chunked"))
        _send_until_refused(connection, chunk)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_trailers_without_an_end_are_refused(hasty: Served) -> None:
    """What follows the last chunk is bounded too, and is no header of the request."""
    with hasty.connect() as connection:
        connection.sendall(hasty.request(b"", "/v1/query", "Transfer-Encoding: chunked") + b"0\r\nX: ")
        _send_until_refused(connection, b"y" * 10_000)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")


def _send_until_refused(connection: socket.socket, chunk: bytes) -> None:
    try:
        for _ in range(50):
            connection.sendall(chunk)
            time.sleep(0.001)
    except (BrokenPipeError, ConnectionResetError):
        return


def test_chunked_body_arrives(served: Served) -> None:
    """A body in chunks, with an extension and a trailer, is the body that it is."""
    chunks = b'5;a=b\r\n{"sql\r\n9\r\n": "one"}\r\n0\r\nAuthorization: Bearer nonsense\r\n\r\n'
    with served.connect() as connection:
        connection.sendall(served.request(b"", "/v1/query", "Transfer-Encoding: chunked") + chunks)
        assert b" 200 " in connection.recv(65536)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 100,
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_garbage_gets_an_answer_and_harms_nobody(hasty: Served, garbage: bytes) -> None:
    """What is no HTTP request is answered with 400 in the envelope, and the connection is closed."""
    with hasty.connect() as connection:
        connection.sendall(garbage)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert code_of(answer) == "http_invalid"
    assert still_serves(hasty)


def test_garbage_after_a_request_does_not_spoil_its_answer(hasty: Served) -> None:
    """A request that is in order is answered as a whole, whatever follows it on the wire."""
    with hasty.connect() as connection:
        connection.sendall(hasty.request(b'{"sql": "wait 0.2"}') + b"\x00garbage\r\n\r\n")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.endswith(b'"elapsed_ms":0.2}')


def test_broken_chunk_ends_the_request_that_it_belongs_to(hasty: Served) -> None:
    """A body that breaks off in nonsense is never taken for whole."""
    with hasty.connect() as connection:
        connection.sendall(hasty.request(b"", "/v1/query", "Transfer-Encoding: chunked") + b"zz\r\n")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert hasty.database.requests == []


def test_pipelined_requests_are_answered_in_their_order(hasty: Served) -> None:
    """Requests sent at once come back one after the other, the slow one first if it was first."""
    with hasty.connect() as connection:
        slow, fast = hasty.request(b'{"sql": "wait 0.3"}'), hasty.request(b"", "/nowhere", method="GET")
        closing = hasty.request(ONE, "/v1/query", "Connection: close")
        connection.sendall(slow + fast + closing)
        answer = read_all(connection)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"200"]


def test_endless_pipelining_is_refused(hasty: Served) -> None:
    """Only so many requests may wait on one connection; the one that runs is still answered."""
    with hasty.connect() as connection:
        connection.sendall(hasty.request(b'{"sql": "wait 0.3"}') + hasty.request(ONE) * 100)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") < 10


def test_head_request_has_the_head_and_no_body(served: Served) -> None:
    """HEAD answers as GET would, without the body, on a connection that stays in step."""
    with served.connect() as connection:
        connection.sendall(served.request(b"", "/v1/databases", method="HEAD"))
        answer = connection.recv(65536)
        assert b"\r\ncontent-length: " in answer
        assert answer.endswith(b"\r\n\r\n")
        connection.sendall(served.request(ONE))
        assert b" 200 " in connection.recv(65536)


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
def test_upgrade_is_ignored(served: Served, upgrade: str) -> None:
    """A client that offers another protocol is answered in HTTP/1.1, and may go on with the connection."""
    headers = (f"Upgrade: {upgrade}", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__")
    with served.connect() as connection:
        for _ in range(2):
            connection.sendall(served.request(ONE, "/v1/query", *headers))
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(served.request(b"", "/health/live", *headers, method="GET"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(served.request(ONE))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8420", "localhost.evil.example", "", "a b", "127.0.0.1@x"]
)
def test_host_that_is_not_ours_is_refused(served: Served, host: str) -> None:
    """A name that somebody made to point here does not get at the keeper, not even at its health."""
    for path in ("/v1/databases", "/health/live"):
        with served.client() as client:
            response = client.get(path, headers={"Host": host})
        assert response.status_code == 421
        assert response.json()["error"]["code"] == "host_not_allowed"


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8420", "127.0.0.1", "[::1]:8420", "192.168.1.7", "localhost."]
)
def test_host_that_is_ours_is_let_in(served: Served, host: str) -> None:
    """Addresses and localhost need no setting."""
    with served.client() as client:
        assert client.get("/v1/databases", headers={"Host": host}).status_code == 200


def test_client_that_goes_away_ends_its_query(served: Served) -> None:
    """Nobody computes for a client that has gone, before the head of the answer and after."""
    with served.connect() as connection:
        connection.sendall(served.request(b'{"sql": "wait 60"}'))
        wait_until(lambda: served.database.waiting, what="the query")
    wait_until(lambda: served.database.cancelled, what="the cancellation")
    with served.connect() as connection:
        connection.sendall(served.request(b'{"sql": "stream 1000000 100000"}'))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    wait_until(lambda: served.database.streams[-1].is_cancelled, what="the cancellation")


def test_client_that_goes_away_does_not_end_its_write(served: Served) -> None:
    """A write whose client has gone runs to its outcome."""
    with served.connect() as connection:
        connection.sendall(served.request(b'{"sql": "wait 0.5"}', "/v1/execute"))
        wait_until(lambda: served.database.writes, what="the write")
    wait_until(lambda: served.database.written, what="the end of the write")


def test_client_that_stops_reading_is_let_go(hasty: Served) -> None:
    """A client that takes nothing holds its query for a bounded time, and next to no memory."""
    with hasty.connect() as connection:
        connection.sendall(hasty.request(b'{"sql": "stream 1000000 100000"}'))
        stream = wait_until(lambda: hasty.database.streams, what="the stream")[0]
        wait_until(lambda: stream.is_cancelled, what="the end of patience")
    assert stream.sent * 100_000 < 50_000_000
    assert still_serves(hasty)


def test_client_that_leaves_its_answer_lying_is_let_go(hasty: Served) -> None:
    """Also when the answer is all sent from our side, its connection is not kept for ever."""
    with hasty.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(3):
            connection.sendall(hasty.request(b'{"sql": "stream 1 3000000"}'))
        connections = hasty.server._state.connections
        wait_until(lambda: not connections, what="the end of the connection")


def test_number_of_connections_is_bounded(make_served: MakeServed) -> None:
    """One connection too many is told so; the control socket still lets an operator in."""
    served = make_served(bounds=Bounds(max_connections=3))
    kept = [served.connect() for _ in range(3)]
    try:
        wait_until(lambda: len(served.server._state.connections) == 3, what="the connections")
        with served.connect() as connection:
            answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert code_of(answer) == "too_many_connections"
        control = socket.socket(socket.AF_UNIX)
        control.connect(str(served.socket_path))
        with control:
            control.sendall(b"GET /v1/databases HTTP/1.1\r\nHost: x\r\n\r\n")
            assert control.recv(65536).startswith(b"HTTP/1.1 200 ")
    finally:
        for each in kept:
            each.close()


def test_stranger_on_the_control_socket_is_refused(make_served: MakeServed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who the kernel says is neither us nor root gets nothing, even if the file's mode let them in."""
    served = make_served()
    monkeypatch.setattr("pondkeeper.server.protocol.key_of_peer", lambda _: None)
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(served.socket_path))
        control.sendall(b"GET /v1/keys HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = read_all(control)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert answer.count(b"HTTP/1.1 ") == 1
