"""Loads of jobs through a keeper on this machine, over its control socket."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from pondkeeper.client.transport import Transport, local_http
from pondkeeper.files.paths import Home


class LoadsClient:
    """One keeper, asked once: whoever loads knows better whether and when to ask again."""

    def __init__(self, home: Path) -> None:
        socket = Home(home).socket
        self._transport = Transport(local_http(socket, timeout_s=None), str(socket), retry_for_s=0, retries=0)

    def load(self, database: str, load: dict[str, Any], *, wait_s: float, timeout_s: float, priority: str) -> dict[str, Any]:
        """The answer to a load; `OutcomeUnknown` and `KeeperNotRunning` say that the next keeper may be asked."""
        body = {"load": load, "wait_s": wait_s, "timeout_s": timeout_s, "priority": priority}
        return dict(self._transport.call("POST", f"/v1/databases/{quote(database, safe='')}/loads", body=body, writes=True))

    def line(self, database: str) -> dict[str, Any]:
        """Who has the database, and who waits for it."""
        return dict(self._transport.call("GET", f"/v1/databases/{quote(database, safe='')}/queue"))

    def cancel(self, write_id: str) -> None:
        """Take a load out of the queue; one that has begun is interrupted."""
        self._transport.call("DELETE", f"/v1/queries/{quote(write_id, safe='')}")

    def publish(self, database: str) -> int:
        """The version of a snapshot that has everything that is in the file."""
        path = f"/v1/databases/{quote(database, safe='')}/snapshots?only_changes=true"
        return int(self._transport.call("POST", path)["version"])

    def close(self) -> None:
        """Close the connections; a load that waits is dropped."""
        self._transport.close()

    def __enter__(self) -> LoadsClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
