"""A web server with a gallery of small images, for the download job of this example: on this machine, and sometimes unwell.

    python examples/artemis/gallery.py --port 8500

It knows what a server of images knows: ETag and Last-Modified, conditional requests, ranges. `--unwell 50`: every fiftieth
image is answered once with 503 before it is given; `--lost 100`: every hundredth is not there. `GET /tally` says what it
was asked for.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import uvicorn

SIDE = 82  # pixels: an image of some 20 KB
LAST_MODIFIED = "Sat, 21 Nov 2026 03:00:00 GMT"
_THUMB = re.compile(r"/thumbs/(img-(\d{5}))\.png\Z")
_RANGE = re.compile(r"bytes=(\d+)-\Z")

Headers = dict[str, str]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def image(name: str) -> bytes:
    """A PNG image that is the same for a name each time, and another for every name."""
    pixels = hashlib.shake_128(name.encode()).digest(SIDE * SIDE * 3)
    rows = b"".join(b"\0" + pixels[row * SIDE * 3 : (row + 1) * SIDE * 3] for row in range(SIDE))
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b""))
    )


class Gallery:
    """The server, as an ASGI application."""

    def __init__(self, *, unwell: int = 0, lost: int = 0) -> None:
        self._unwell = unwell
        self._lost = lost
        self._images: dict[str, tuple[bytes, str]] = {}
        self._was_unwell: set[str] = set()
        self._tally: Counter[str] = Counter()

    async def __call__(self, scope: dict[str, Any], _receive: object, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/tally":
            await _answer(send, 200, {"content-type": "application/json"}, json.dumps(self._tally).encode())
            return
        status, headers, body = self._thumb(scope["path"], scope["headers"])
        self._tally[str(status)] += 1
        await _answer(send, status, headers, body)

    def _thumb(self, path: str, asked: Iterable[tuple[bytes, bytes]]) -> tuple[int, Headers, bytes]:
        found = _THUMB.match(path)
        if found is None or (self._lost and int(found[2]) % self._lost == 0):
            return 404, {}, b"there is no such image\n"
        if self._unwell and int(found[2]) % self._unwell == 0 and path not in self._was_unwell:
            self._was_unwell.add(path)
            return 503, {"retry-after": "0"}, b"not now\n"
        body, etag = self._image(found[1])
        headers = {"content-type": "image/png", "etag": etag, "last-modified": LAST_MODIFIED, "accept-ranges": "bytes"}
        conditions = {name: value.decode("latin-1") for name, value in asked if name in (b"if-none-match", b"range", b"if-range")}
        if conditions.get(b"if-none-match") == etag:
            return 304, headers, b""
        wanted = _RANGE.match(conditions.get(b"range", ""))
        if wanted and conditions.get(b"if-range", etag) == etag:
            begin = int(wanted[1])
            if begin >= len(body):
                return 416, {"content-range": f"bytes */{len(body)}"}, b""
            return 206, headers | {"content-range": f"bytes {begin}-{len(body) - 1}/{len(body)}"}, body[begin:]
        return 200, headers, body

    def _image(self, name: str) -> tuple[bytes, str]:
        if name not in self._images:
            body = image(name)
            self._images[name] = body, f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        return self._images[name]


async def _answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    given = headers if status == 304 else headers | {"content-length": str(len(body))}
    lines = [(name.encode(), value.encode("latin-1")) for name, value in given.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """The command: serve until it is interrupted."""
    parser = argparse.ArgumentParser(description="Serve a gallery of small images.")
    parser.add_argument("--port", type=int, default=8500)
    parser.add_argument("--unwell", type=int, default=0, metavar="N", help="answer every N-th image once with 503")
    parser.add_argument("--lost", type=int, default=0, metavar="N", help="every N-th image is not there")
    options = parser.parse_args()
    print(f"a gallery at http://127.0.0.1:{options.port}/thumbs/", file=sys.stderr, flush=True)
    gallery = Gallery(unwell=options.unwell, lost=options.lost)
    uvicorn.run(gallery, host="127.0.0.1", port=options.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
