"""A client that asks something small now and then, in a process of its own: what it measures is the keeper, not its neighbours.

    python -m campaigns.quiet --port N --pause S < key      until its stdin ends

Prints `begun` when it has its first answer, and at its end one JSON object: latencies in seconds, and statuses.
"""

from __future__ import annotations

import argparse
import http.client
import json
import select
import sys
import time

QUIET_SQL = "SELECT g, count(*) FROM pebbles GROUP BY g ORDER BY g LIMIT 5"


class Asking:
    """One connection, asked again and again."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Authorization": f"Bearer {key}"}
        self.latencies_s: list[float] = []
        self.outcomes: list[int] = []

    def ask(self) -> None:
        began = time.monotonic()
        self.outcomes.append(self._status())
        self.latencies_s.append(time.monotonic() - began)

    def _status(self) -> int:
        try:
            self._connection.request("POST", "/v1/query", json.dumps({"sql": QUIET_SQL}), self._headers)
            with self._connection.getresponse() as response:
                response.read()
                return response.status
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return 0


def main() -> None:
    """Ask until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pause", type=float, required=True)
    options = parser.parse_args()
    asking = Asking(options.port, sys.stdin.readline().strip())
    asking.ask()
    print("begun", flush=True)
    while not select.select([sys.stdin], [], [], options.pause)[0]:
        asking.ask()
    print(json.dumps({"latencies_s": asking.latencies_s, "outcomes": asking.outcomes}))


if __name__ == "__main__":
    main()
