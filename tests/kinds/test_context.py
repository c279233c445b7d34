"""What a kind says of itself: phases, rates, tables, turns and errors, as the status shows them; and that secrets do not."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pondkeeper.errors import JobInvalid, RunCancelled
from pondkeeper.jobs.plan import read_plan
from pondkeeper.jobs.status import Phase, RunStatus, status_in
from pondkeeper.kinds.context import KEPT_VERSIONS, RunContext
from pondkeeper.kinds.progress import Pace
from tests.kinds.bench import Bench
from tests.support.keeper import wait_until


@pytest.fixture
def context(tmp_path: Path) -> Iterator[RunContext]:
    """The context of an attempt that nobody carries out."""
    paths = Bench(tmp_path).run("true").paths
    status = status_in(paths.status_json)
    assert status is not None
    context = RunContext(read_plan(paths.plan_json), status)
    yield context
    context.close()


def on_disk(context: RunContext) -> RunStatus:
    status = status_in(context.paths.status_json)
    assert status is not None
    return status


def test_what_is_told_stands_on_disk_soon(context: RunContext) -> None:
    """Without another call, and as often as one likes."""
    context.phase(Phase.EXTRACTING, "orders")
    for done in range(20_000):
        context.progress(done, 20_000, unit="files")
    context.table("main.orders", 7, 700)
    context.table("main.items", 1, 50)
    context.table("main.orders", 9, 900)
    context.detail(watermark="2026-01-01")
    wait_until(lambda: on_disk(context).details, what="the last word")
    status = on_disk(context)
    assert (status.phase, status.message, status.done, status.total, status.unit) == ("extracting", "orders", 19_999, 20_000, "files")
    assert (status.rows, status.size_bytes, status.tables["main.orders"]) == (10, 950, {"rows": 9, "size_bytes": 900})


def test_a_turn_is_shown_and_counted(context: RunContext) -> None:
    """Who has the database while the run waits; then that it loads; then what it did before, and how long the file was held."""
    context.phase(Phase.EXTRACTING)
    context.waiting({"holder": "dbt build", "position": 1})
    assert context.status.phase is Phase.WAITING
    assert context.status.lease == {"holder": "dbt build", "position": 1}
    context.holding()
    assert (context.status.phase, context.status.lease) == (Phase.LOADING, None)
    context.released(0.25, 7)
    context.holding()
    context.released(0.5, 7)
    assert (context.status.phase, context.status.held_s, context.status.versions) == (Phase.EXTRACTING, 0.75, [7])


def test_versions_of_a_run_that_goes_on_for_weeks_stay_few(context: RunContext) -> None:
    """The first and the newest."""
    for version in range(1000):
        context.released(0.0, version)
    assert len(context.status.versions) == 2 * KEPT_VERSIONS
    assert (context.status.versions[0], context.status.versions[-1]) == (0, 999)


def test_a_new_phase_counts_from_zero(context: RunContext) -> None:
    """The rows of the last phase are none of this one's."""
    context.phase(Phase.EXTRACTING)
    context.progress(500, 1000)
    context.phase(Phase.LOADING)
    assert (context.status.done, context.status.total, context.status.eta_s) == (0, None, None)


def test_secrets_are_in_no_status(context: RunContext) -> None:
    """Drivers repeat in their messages what they were given."""
    context.secret("sesame-17")
    context.phase(Phase.EXTRACTING, "connecting as sesame-17")
    context.close({"code": "source_unavailable", "message": 'user "sesame-17" at postgres://a:hunter22@h/db', "remedy": "none"})
    text = context.paths.status_json.read_text()
    assert "sesame-17" not in text
    assert "hunter22" not in text
    assert "source_unavailable" in text


def test_a_job_without_a_database_has_none(context: RunContext) -> None:
    """And says what to do."""
    with pytest.raises(JobInvalid, match="no database"):
        _ = context.warehouse


def test_a_run_that_is_to_end_is_told_so(context: RunContext) -> None:
    """Every thread of a kind may ask."""
    context.check_stopping()
    threading.Thread(target=context.stopping.set).start()
    assert context.stopping.wait(30)
    with pytest.raises(RunCancelled):
        context.check_stopping()


def test_a_rate_is_that_of_the_last_seconds() -> None:
    """What was fast in the beginning says nothing of now; and the first moment says nothing at all."""
    pace = Pace()
    pace.note(0, now=0.0)
    assert pace.rate_per_s(100, now=0.1) is None
    for second in range(1, 100):
        pace.note(second * 1000 if second < 50 else 49_000 + (second - 49) * 10, now=float(second))
    assert pace.rate_per_s(49_500, now=99.0) == pytest.approx(10, rel=0.2)
    pace.note(5, now=100.0)  # a phase that begins anew
    assert pace.rate_per_s(105, now=110.0) == pytest.approx(10)


def test_a_run_beside_a_keeper_loads_nothing_of_a_keeper() -> None:
    """What writes logs, starts children and is fenced belongs to runs without one: 90 ms of imports before anything is done."""
    loaded = "import sys, pondkeeper.kinds.warehouse, pondkeeper.kinds.work; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-P", "-c", loaded], capture_output=True, text=True, check=True).stdout.split()
    assert "pondkeeper.kinds.reach" in modules
    assert not {"structlog", "duckdb", "pyarrow", "pondkeeper.workers.alone"} & set(modules)
