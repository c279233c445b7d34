"""What a person sees of a run: words, lines now and then, a bar on a terminal."""

from __future__ import annotations

import os
import pty
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pondkeeper.cli import watching
from pondkeeper.cli.runs_shown import holder_of, phase_of, print_run, progress_of, took_s, what
from pondkeeper.cli.watching import Bar, Lines, Watched
from pondkeeper.jobs.status import Phase, RunStatus, status_json
from tests.support.keeper import wait_until


def run_of(phase: Phase = Phase.RUNNING, **values: Any) -> dict[str, Any]:
    now = time.time()
    started = values.pop("started_at", now - 5)
    return status_json(RunStatus("20261121T031500Z-4f2a9c", "nightly", "postgres", "shop", phase, 1, "manual", now - 6, started, **values))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, ""),
        ({"done": 1200}, "1,200 rows"),
        ({"done": 1200, "total": 5000, "rate_per_s": 310.4, "eta_s": 12.2}, "1,200 of 5,000 rows, 310/s, 12.2 s left"),
        ({"done": 3, "total": 8, "unit": "files", "rate_per_s": 0.52}, "3 of 8 files, 0.5/s"),
        ({"done": 2_500_000, "total": 10_000_000, "unit": "bytes", "rate_per_s": 1e6}, "2.5 MB of 10.0 MB, 1.0 MB/s"),
        ({"total": 7}, "0 of 7 rows"),
    ],
)
def test_how_far_it_is(values: dict[str, Any], said: str) -> None:
    assert progress_of(run_of(**values)) == said


def test_for_whom_it_waits() -> None:
    since = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
    lease = {"holder": "dbt build (pid 12)", "why": "nightly", "since": since, "waiting_since": since, "position": 2}
    waiting = run_of(Phase.WAITING, lease=lease)
    assert holder_of(waiting) == "dbt build (pid 12) has had it for 5 min, for: nightly; 2 before it"
    assert phase_of(waiting) == "waits for the lease"
    assert "dbt build" in what(waiting)
    assert holder_of(run_of()) == ""


def test_what_went_wrong_and_what_comes() -> None:
    error = {"code": "source_unavailable", "message": "It\nis away.", "remedy": "Wait."}
    assert what(run_of(Phase.FAILED, error=error)) == "It is away. [source_unavailable]"
    assert what(run_of(Phase.QUEUED, error=error, not_before=time.time() + 60)) == "attempt 1 after: It is away. [source_unavailable]"
    assert what(run_of(Phase.QUEUED, not_before=time.time() + 59.9)).startswith("in 59")
    assert phase_of(run_of() | {"is_alive": False}) == "lost"
    assert phase_of(run_of(Phase.QUEUED) | {"is_alive": False}) == "queued"
    assert took_s(run_of(Phase.DONE, started_at=100.0, finished_at=103.5)) == 3.5
    assert took_s(run_of(Phase.QUEUED, started_at=None)) is None


def test_what_its_kind_has_to_tell(capsys: pytest.CaptureFixture[str]) -> None:
    """Counts in a line, models and tests of dbt as a table, attempts that failed before."""
    details = {
        "outcomes": {"success": 1200, "error": 1},
        "nodes": [{"name": "routes", "status": "success"}, {"name": "delays", "status": "error", "message": "no\tsuch column"}],
        "tables_changed": ["main.routes", "main.delays"],
        "failed_attempts": [{"attempt": 1, "code": "source_unavailable", "message": "It\nis away.", "ended_at": 1.0}],
        "lost_at": [1.0],
        "built_by": None,
    }
    print_run(run_of(Phase.DONE, details=details, tables={"main.routes": {"rows": 7, "size_bytes": 2000}}), print)
    said = capsys.readouterr().out
    for text in ("outcomes: success 1,200, error 1", "tables_changed: main.routes, main.delays", "attempt 1: It is away. [source_unavailable]"):
        assert text in said
    assert [line.split() for line in said.splitlines() if line.startswith(("routes", "delays"))] == [
        ["routes", "success"],
        ["delays", "error", "no\\tsuch", "column"],
    ]
    assert "lost_at" not in said
    assert "built_by" not in said


def test_lines_come_at_each_change_and_then_more_and_more_seldom(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(watching.time, "monotonic", lambda: now[0])
    lines = Lines()
    for second in range(40):
        now[0] = 1000.0 + second
        lines.show(run_of(done=second, total=100))
    lines.show(run_of(Phase.LOADING))
    lines.show(run_of(Phase.DONE))
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "of 100" in line] == [f"nightly: running: {second} of 100 rows (5.0 s)" for second in (0, 2, 6, 14, 30)]
    assert [line.split(":")[1].strip() for line in said[-2:]] == ["loading", "done"]


def test_lines_of_a_log_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Watched() as watched:
        watched.take([{"log": "one\tone\n\x1b[31mtw"}, {"log": "o\nrest"}, {}])
    assert capsys.readouterr().err.splitlines() == ["one     one", "\\x1b[31mtwo", "rest"]


def test_a_bar_moves_and_is_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal: the run in one line, its log above, and nothing of the bar at the end."""
    master, slave = pty.openpty()
    try:
        with open(slave, "w", closefd=False) as terminal:
            monkeypatch.setattr("sys.stderr", terminal)
            monkeypatch.setenv("TERM", "xterm")
            monkeypatch.setenv("COLUMNS", "100")
            with Watched() as watched:
                assert isinstance(watched._screen, Bar)
                watched.take([{"run": run_of(done=500, total=1000)}, {"log": "a line\n"}, {}])
            terminal.flush()
        os.set_blocking(master, False)
        pieces: list[bytes] = []
        wait_until(lambda: pieces.append(_read(master)) or b"".join(pieces).rstrip().endswith(b"\x1b[2K"), what="the wiping of the bar")
        shown = b"".join(pieces).decode()
    finally:
        os.close(slave)
        os.close(master)
    assert "nightly: running" in shown
    assert "500 of 1,000 rows" in shown
    assert "a line" in shown


def _read(descriptor: int) -> bytes:
    """What is there now; a terminal gives what was written to it in pieces."""
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return b""
