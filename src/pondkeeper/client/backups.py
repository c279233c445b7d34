"""What a client does with the archive: `client.backups`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pondkeeper.client.transport import Transport


class Backups:
    """The archived versions of a database."""

    def __init__(self, transport: Transport, path: Callable[[str | None, str], str]) -> None:
        self._transport = transport
        self._path = path

    def list(self, database: str | None = None, *, limit: int = 100) -> dict[str, Any]:
        """The newest `versions`, newest first; how many there are in all (`total`), and the `oldest`."""
        return dict(self._transport.call("GET", self._path(database, f"backups?limit={limit}")))

    def now(self, database: str | None = None) -> dict[str, Any]:
        """Archive what is committed now, and answer with the version that contains it."""
        return dict(self._transport.call("POST", self._path(database, "backups")))

    def verify(self, version: int | None = None, database: str | None = None) -> dict[str, Any]:
        """Restore a version (the newest) beside everything else and check it. Raises what is wrong with it."""
        body = {} if version is None else {"version": version}
        return dict(self._transport.call("POST", self._path(database, "backups/verify"), body=body))

    def prune(self, *, dry_run: bool = False) -> dict[str, Any]:
        """Remove the versions that need not be kept, of every database; with `dry_run`, say which."""
        return dict(self._transport.call("POST", "/v1/backups/prune", body={"dry_run": dry_run}))
