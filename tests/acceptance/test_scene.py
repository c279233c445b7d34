"""The scene that must play: everything at once on one warehouse, and nobody sees a lock error or a wrong answer."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import ledger
from tests.conftest import StartKeeper
from tests.support.keeper import KeeperProcess, program_environment
from tests.support.warehouse import DBT_PROJECT

SECONDS = float(os.environ.get("PONDKEEPER_SCENE_SECONDS", "60"))
ENDING_S = 120.0  # what began before the end may still take its deadline, and a dbt build on a busy machine

pytestmark = pytest.mark.acceptance


class Scene:
    """The cast, and what they report."""

    def __init__(self, keeper: KeeperProcess, folder: Path, seconds: float) -> None:
        self._keeper = keeper
        self._folder = folder
        self._seconds = seconds
        self._cast: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
        self.reports: dict[str, dict[str, Any]] = {}

    def enter(self, role: str, *names: str, pause_s: float = 0.0, **config: Any) -> None:
        """Let an actor in; each name is one process."""
        for name in names:
            report = self._folder / f"{name}.json"
            config |= {"name": name, "report": str(report), "seconds": self._seconds, "pause_s": pause_s}
            config |= {"url": self._keeper.url, "home": str(self._keeper.home.root), "folder": str(self._folder)}
            config |= {"file": str(self._keeper.target), "published": str(self._keeper.database.published)}
            config |= {"dbt_project": str(DBT_PROJECT), "offset_s": config.get("offset_s", 0.0)}
            command = [sys.executable, "-m", "tests.acceptance.actors", role, json.dumps(config)]
            with (self._folder / f"{name}.log").open("wb") as log:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=program_environment()
                )
            self._cast[name] = (process, report)

    def play(self) -> None:
        """Wait for everybody's end, and collect the reports."""
        give_up_at = time.monotonic() + self._seconds + ENDING_S
        try:
            for name, (process, report) in self._cast.items():
                process.wait(max(0.1, give_up_at - time.monotonic()))
                log = (self._folder / f"{name}.log").read_text(errors="replace")
                assert report.exists(), f"{name} ended with exit code {process.returncode} and no report:\n{log}"
                self.reports[name] = json.loads(report.read_text())
        finally:
            for process, _ in self._cast.values():
                process.kill()
                process.wait()

    def all(self, what: str) -> list[str]:
        return [line for report in self.reports.values() for line in report[what]]

    def acknowledged(self) -> dict[str, int]:
        """How many transactions each writing actor knows to be committed."""
        notes = {name: report["notes"].get("acknowledged") for name, report in self.reports.items()}
        return {name: number for name, number in notes.items() if number}

    def table(self) -> str:
        """What everybody did, how often, and how long it took."""
        latencies: dict[str, list[float]] = defaultdict(list)
        for report in self.reports.values():
            for what, values in report["latencies_ms"].items():
                latencies[what].extend(values)
        lines = ["| what | times | p50 ms | p99 ms | max ms |", "| --- | ---: | ---: | ---: | ---: |"]
        for what, values in sorted(latencies.items()):
            p99 = statistics.quantiles(values, n=100)[98] if len(values) > 1 else values[0]
            numbers = (f"{number:,.1f}" for number in (statistics.median(values), min(p99, max(values)), max(values)))
            lines.append(f"| {what} | {len(values):,} | {' | '.join(numbers)} |")
        return "\n".join(lines)


@pytest.fixture
def stage(start_keeper: StartKeeper, flights: Path) -> KeeperProcess:
    """A keeper on the flights warehouse, with a ledger in it."""
    keeper = start_keeper(flights)
    outcome = keeper.client().execute(ledger.CREATE)
    answer = keeper.client().query(ledger.CHECK, at_least=outcome.version)
    assert ledger.faults(next(answer.dicts())) == []
    return keeper


def key(keeper: KeeperProcess, name: str, role: str) -> str:
    return str(keeper.local_client().create_key(name, role)["token"])


@pytest.mark.timeout(SECONDS + 2 * ENDING_S)  # the scene itself, its ending, and starting everybody
def test_the_scene_plays(stage: KeeperProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Eight clients, two writers, dbt, a BI tool, a plain script and runaways, at once: no lock error, no wrong answer."""
    if not shutil.which("dbt", path=str(Path(sys.executable).parent)):
        pytest.skip("dbt is not installed beside this Python: script/test installs it")
    reads, writes = key(stage, "dashboards", "reader"), key(stage, "application", "writer")
    scene = Scene(stage, tmp_path, SECONDS)
    scene.enter("http_client", *(f"client-{number}" for number in range(1, 9)), key=reads, pause_s=0.3)
    scene.enter("writer", "writer-1", key=writes)
    scene.enter("writer", "writer-2", key=writes, offset_s=0.5)
    scene.enter("dbt", "analyst", pause_s=8.0)
    scene.enter("published_reader", "bi-tool", pause_s=0.5)
    scene.enter("plain_script", "script", pause_s=3.0)
    scene.enter("runaway", "runaway", key=reads)
    scene.enter("health", "load-balancer")
    scene.play()

    with capsys.disabled():
        print(f"\n\n{SECONDS:g} seconds of everything at once\n\n{scene.table()}\n")
        print("\n".join([*scene.all("errors"), *scene.all("wrong")][:40]))
    assert scene.all("wrong") == []
    assert scene.all("errors") == []
    check_the_end(stage, scene)


def check_the_end(keeper: KeeperProcess, scene: Scene) -> None:
    """Everything acknowledged is there, nothing else is, and the keeper stops in order."""
    for name in ("writer-1", "writer-2", "script"):
        assert scene.acknowledged().get(name, 0) > 0, f"{name} never got to write"
    for what in ("pondkeeper run -- dbt build", "published.duckdb, held open", "query, ledger"):
        assert any(what in report["latencies_ms"] for report in scene.reports.values()), f"nobody did: {what}"
    assert scene.reports["runaway"]["notes"]["stopped"] >= SECONDS // 7

    version = keeper.local_client().take_snapshot()["version"]
    answer = keeper.client().query("SELECT writer, count(*) FROM journal GROUP BY ALL", at_least=version)
    assert dict(answer.rows) == scene.acknowledged()
    final = next(keeper.client().query(ledger.CHECK, at_least=version).dicts())
    assert ledger.faults(final) == []
    marts = next(keeper.client().query(ledger.CHECK_MARTS, at_least=version).dicts())
    assert ledger.marts_faults(marts) == []
    assert "Traceback" not in keeper.log()
    assert keeper.stop() == 0


@pytest.mark.timeout(180)
def test_the_scene_notices_a_wrong_answer(stage: KeeperProcess, tmp_path: Path) -> None:
    """Positive control: an account that loses one unit, and an entry that is missing, are reported by who reads them."""
    stage.client().execute(
        ["UPDATE accounts SET balance = balance - 1 WHERE id = 7", "INSERT INTO journal VALUES ('ghost', 2, 1)"]
    )
    stage.local_client().take_snapshot()
    scene = Scene(stage, tmp_path, seconds=2.0)
    scene.enter("http_client", "client", key=key(stage, "one", "reader"), pause_s=0.05)
    scene.enter("published_reader", "bi-tool", pause_s=0.05)
    scene.play()
    for name in ("client", "bi-tool"):
        wrong = " ".join(scene.reports[name]["wrong"])
        assert "total is 99999" in wrong, scene.reports[name]
        assert "numbered is 2 and should be 1" in wrong, scene.reports[name]
