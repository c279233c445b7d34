"""A job's view of its database for tests: a warehouse with a watcher that remembers, and staged files."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from pondkeeper.files.paths import DatabasePaths, Home
from pondkeeper.kinds.warehouse import Warehouse

RUN = "20261121T031500Z-4f2a9c"


@dataclass
class Watched:
    """What a run would show in its status."""

    stopping: threading.Event = field(default_factory=threading.Event)
    waits: list[dict[str, Any]] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    held: list[tuple[float, int | None]] = field(default_factory=list)

    def waiting(self, lease: dict[str, Any]) -> None:
        self.waits.append(lease)
        self.phases.append("waiting")

    def holding(self) -> None:
        self.phases.append("holding")

    def released(self, held_s: float, version: int | None) -> None:
        self.held.append((held_s, version))
        self.phases.append("released")


class Bench:
    """One job with its warehouse and a folder to stage in."""

    def __init__(self, paths: DatabasePaths, job: str = "shop", run_id: str = RUN) -> None:
        self.paths, self.job = paths, job
        self.watched = Watched()
        self.run_id = run_id
        self.staging = Home(paths.home).run(run_id).staging
        self.staging.mkdir(parents=True, exist_ok=True)
        self.warehouse = Warehouse(paths, job=job, run_id=run_id, staging=self.staging, watcher=self.watched)
        self._number = 0

    def stage(self, query: str) -> list[Path]:
        """The rows of a query as a staged file."""
        self._number += 1
        path = self.staging / f"{self._number}.parquet"
        with duckdb.connect() as connection:
            connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
        return [path]
