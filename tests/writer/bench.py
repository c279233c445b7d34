"""A writer's session and applier on a workbench: batches in, answers out, no process and no lease around them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pondkeeper.writer.applying import Applier
from pondkeeper.writer.batch import Batch
from pondkeeper.writer.session import Session

Statement = tuple[str, list[Any] | None]


@dataclass
class Bench:
    """A writer's session and applier without a process around them."""

    session: Session
    file: Path
    sent: list[dict[str, Any]] = field(default_factory=list)
    version: int = 1
    keep_s: float = 3600.0

    def record_commit(self, rows: int = 0) -> int:
        return self.version

    version_of_all = record_commit

    def batch(self, writes: list[list[Statement]]) -> Batch:
        return self.keyed_batch([({}, write) for write in writes])

    def keyed_batch(self, writes: list[tuple[dict[str, str], list[Statement]]]) -> Batch:
        """A batch of writes with their `key` and `digest`."""
        self.sent.clear()
        times = {"wait_s": 60, "timeout_s": 60, "asked_ns": 0}
        frames = [{"number": n, "statements": write, **times, **key} for n, (key, write) in enumerate(writes, 1)]
        return Batch(frames, self.sent.append)

    def apply(self, batch: Batch) -> dict[int, dict[str, Any]]:
        """Apply all of it; the answers by number."""
        applier = Applier(self.sent.append, self, self.keep_s)
        while not batch.is_over:
            applier.apply_next(self.session, batch)
        return self.answers()

    def answers(self) -> dict[int, dict[str, Any]]:
        answers = [answer for frame in self.sent if frame["op"] == "answers" for answer in frame["answers"]]
        assert len({answer["number"] for answer in answers}) == len(answers), "answered twice"
        return {answer["number"]: answer for answer in answers}

    @property
    def commits(self) -> list[list[int]]:
        return [frame["numbers"] for frame in self.sent if frame["op"] == "committing"]

    def run(self, sql: str) -> list[Any]:
        return self.session._connection.cursor().execute(sql).fetchall()
