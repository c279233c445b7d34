"""A flood in a process of its own: so many connections at once with one key, each asking again and again.

    python -m campaigns.flood --port N --count N --seconds S < key

Prints one JSON object: how often each status came, the slowest answer, requests that were never answered.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections import Counter

RUDE_PAUSE_S = 0.2
QUERIES = ("SELECT count(*) FROM pebbles WHERE s LIKE '%a%b%'", "SELECT g, sum(n) FROM pebbles GROUP BY g", "SELECT 1")
ANSWER_WITHIN_S = 60.0


class Flood:
    """What all its connections share."""

    def __init__(self, port: int, key: str, seconds: float, timeout_s: float) -> None:
        self.port = port
        self.statuses: Counter[int] = Counter()
        self.slowest_s = 0.0
        self.unanswered = 0
        self.connected = 0
        self.until = time.monotonic() + seconds
        self._requests = [self._request(sql, key, timeout_s) for sql in QUERIES]

    def _request(self, sql: str, key: str, timeout_s: float) -> bytes:
        body = json.dumps({"sql": sql, "limits": {"timeout_s": timeout_s}}).encode()
        head = f"POST /v1/query HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    async def live(self, number: int) -> None:
        """One client: asks, takes the answer, asks again at once; after a refusal it waits, or pauses rudely."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except (OSError, TimeoutError):
            self.unanswered += 1
            return
        self.connected += 1
        turn = number
        try:
            while time.monotonic() < self.until:
                began = time.monotonic()
                writer.write(self._requests[turn % len(self._requests)])
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    status, retry_after_s = await _answer(reader)
                self.statuses[status] += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                turn += 1
                if status != 200:
                    await asyncio.sleep(retry_after_s if number % 2 else RUDE_PAUSE_S)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            self.unanswered += 1
        finally:
            writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, float]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])}
    if "content-length" in fields:
        await reader.readexactly(int(fields["content-length"]))
    else:
        while (size := int(await reader.readuntil(b"\r\n"), 16)) >= 0:
            await reader.readexactly(size + 2)
            if not size:
                break
    return int(head.split(" ", 2)[1]), float(fields.get("retry-after", 1))


async def _all(flood: Flood, count: int) -> None:
    await asyncio.gather(*(flood.live(number) for number in range(count)))


def main() -> int:
    """Flood, then say what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--timeout", type=float, default=5.0)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(4096, 2 * options.count)), hard))
    flood = Flood(options.port, sys.stdin.read().strip(), options.seconds, options.timeout)
    asyncio.run(_all(flood, options.count))
    print(json.dumps({
        "statuses": dict(sorted(flood.statuses.items())), "slowest_s": round(flood.slowest_s, 2),
        "unanswered": flood.unanswered, "connected": flood.connected,
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
