"""What the benchmarks' own client makes of bytes as a network delivers them."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from benchmarks.lean import LeanClient

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"


def _chunked(chunks: Sequence[bytes]) -> bytes:
    frames = (b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks if chunk)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(frames) + b"0\r\n\r\n"


def _counted(body: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


@contextmanager
def _answering(answers: Sequence[tuple[bytes, int]]) -> Iterator[str]:
    """A server that answers one connection's requests with these bytes, sent in pieces of at most that size."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            for answer, piece in answers:
                connection.recv(65536)
                for start in range(0, len(answer), piece):
                    connection.sendall(answer[start : start + piece])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(5)


@pytest.mark.parametrize("piece", [1, 7, 1000, 10_000_000])
def test_a_chunked_body_arrives_whole(piece: int) -> None:
    """However the chunks and their frames are cut into packets, the body is what was sent."""
    source = random.Random(piece)
    sizes = [1, 15, 16, 17, 300, 5000] if piece < 10 else [1, 17, 65_535, 65_536, 400_000]
    bodies = [[source.randbytes(source.choice(sizes)) for _ in range(count)] for count in (0, 1, 2, 7)]
    with _answering([(_chunked(chunks), piece) for chunks in bodies]) as url:
        client = LeanClient(url, "key")
        for chunks in bodies:
            assert bytes(client.request("GET", "/", None).body) == b"".join(chunks)
        client.close()


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_a_counted_body_arrives_whole(size: int) -> None:
    """A body with a Content-Length is received to its last byte and not further."""
    body = random.Random(size).randbytes(size)
    with _answering([(_counted(body), 4096), (_counted(b"next"), 4096)]) as url:
        client = LeanClient(url, "key")
        assert bytes(client.request("GET", "/", None).body) == body
        assert bytes(client.request("GET", "/", None).body) == b"next"
        client.close()


def test_an_answer_that_is_cut_is_an_error() -> None:
    """A connection that ends in the middle of a body is never taken for the end of the answer."""
    whole = _chunked([b"x" * 200_000])
    with _answering([(whole[:-9], 50_000)]) as url, pytest.raises(ConnectionError):
        LeanClient(url, "key").request("GET", "/", None)
