"""A real replica in a process of its own, following a real keeper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from pondkeeper.files.paths import DatabasePaths
from tests.support.keeper import KeeperProcess


class ReplicaProcess(KeeperProcess):
    """`pondkeeper replica FOLDER --from …` as its own process."""

    command = "replica"

    def __init__(self, folder: Path, source: str, key: str | None, *arguments: str, under: Sequence[str] = ()) -> None:
        folder.mkdir(exist_ok=True)
        environment = {"PONDKEEPER_KEY": key} if key else {}
        arguments = ("--from", source, "--interval", "50ms", *arguments)
        super().__init__(folder, *arguments, environment=environment, under=under)

    def state(self, name: str = "w") -> dict[str, Any]:
        """What its status says of being a replica: `of`, `state`, `lag_s`, …"""
        return dict(self.client().status(name)["replica"])

    def paths(self, name: str = "w") -> DatabasePaths:
        return self.home.database(self.target / f"{name}.duckdb")

    def asked(self, sql: str, **body: Any) -> httpx.Response:
        """The raw answer of a query: status, headers and body."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.post(
            f"{self.url}/v1/query", json={"sql": sql, **body}, headers=headers, timeout=60.0, trust_env=False
        )
