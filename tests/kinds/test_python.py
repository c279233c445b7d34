"""Jobs in Python as they are: found, called with their context, interrupted, and their batches written however they end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import pondkeeper
from pondkeeper.errors import JobInvalid
from pondkeeper.files.paths import default_home
from pondkeeper.jobs.endings import cancel_run
from pondkeeper.jobs.status import Phase
from pondkeeper.kinds.python.finding import function_of
from tests.kinds.running import job_running, run_job
from tests.support.keeper import KeeperProcess, wait_until

JOBS = """
import threading, time
from decimal import Decimal
import pyarrow as pa
import pondkeeper

@pondkeeper.job
def sync(ctx: pondkeeper.JobContext, day: str, limit: int = 3) -> None:
    state = ctx.state() or {"upto": 0}
    with ctx.stage() as stage:
        numbers = range(state["upto"], state["upto"] + limit)
        stage.append("raw.events", [{"id": n, "day": day, "price": Decimal("1.50")} for n in numbers])
        stage.upsert("raw.totals", pa.table({"day": [day], "upto": [numbers.stop]}), keys=["day"])
        with ctx.read() as snapshot:
            stage.replace("raw.mirror", snapshot.sql("SELECT id, id * 2 AS twice FROM numbers"))
        stage.append("raw.none", [])
        stage.state({"upto": numbers.stop})
    assert ctx.query("SELECT count(*) FROM raw.events", at_least=stage.loaded.version)[0][0] == numbers.stop
    ctx.say(f"token {ctx.secret('token')} of {ctx.name}")

@pondkeeper.job
def mark(ctx: pondkeeper.JobContext) -> None:
    gate = threading.Barrier(4, timeout=60)
    def double(row):
        if row[0] < 4:
            gate.wait()
        if row[0] == 7:
            raise ValueError("seven")
        return 2 * row[0]
    with ctx.batch("UPDATE numbers SET doubled = batch.doubled FROM batch WHERE numbers.id = batch.id", size=4) as batch:
        for each in ctx.map(double, ctx.query("SELECT id FROM numbers ORDER BY id"), workers=4, unit="numbers"):
            if each.error is None:
                batch.add(id=each.item[0], doubled=each.value)
    ctx.detail(done=batch.written)

@pondkeeper.job
def sleepy(ctx):
    batch = ctx.batch("INSERT INTO slept SELECT n FROM batch", every_s=3600)
    batch.add(n=1)
    ctx.progress(1, 2)
    time.sleep(3600)

@pondkeeper.job
def careless(ctx):
    ctx.batch("INSERT INTO slept SELECT n FROM batch").add(n=2)
    for _ in ctx.map(lambda n: 1 // n, [1, 0]):
        pass

@pondkeeper.job
def broken(ctx):
    with ctx.stage() as stage:
        stage.append("raw.never", [{"id": 1}])
        raise KeyError("in the midst")

def plain(ctx):
    pass
"""


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """A keeper with a table of numbers, and the jobs beside its file."""
    folder = tmp_path_factory.mktemp("python")
    (folder / "jobs.py").write_text(JOBS)
    with KeeperProcess(folder / "shop.duckdb") as keeper:
        keeper.client().execute("CREATE TABLE numbers AS SELECT range AS id, NULL::BIGINT AS doubled FROM range(10)")
        keeper.client().execute("CREATE TABLE slept (n BIGINT)")
        yield keeper


def rows(keeper: KeeperProcess, sql: str) -> list[tuple[object, ...]]:
    """The rows as they are now: what was committed before a write is in its version."""
    version = keeper.client().execute("DELETE FROM slept WHERE false").version
    return [tuple(row) for row in keeper.client().query(sql, at_least=version).rows]


def test_a_sync_stages_loads_and_goes_on_where_it_was(keeper: KeeperProcess, tmp_path: Path) -> None:
    """Append, upsert and replace in one transaction with the job's state; the next run begins from that state."""
    (tmp_path / "token").write_text("sesame-17")
    secrets = {"token": f"file:{tmp_path / 'token'}"}
    settings = {"function": "jobs.py:sync", "folder": str(keeper.target.parent), "secrets": secrets}
    for arguments in ('{"day": "monday"}', '{"day": "tuesday", "limit": 2}'):
        run = run_job(keeper.target, "python", name="sync", arguments=arguments, **settings)
        assert run.status().phase == Phase.DONE, run.log()
        assert "sesame-17" not in run.log()
    assert rows(keeper, "SELECT count(*), count(DISTINCT id), sum(price) FROM raw.events") == [(5, 5, "7.50")]
    assert rows(keeper, "SELECT day, upto FROM raw.totals ORDER BY day") == [("monday", 3), ("tuesday", 5)]
    assert rows(keeper, "SELECT sum(twice)::BIGINT FROM raw.mirror") == [(90,)]
    assert run.status().tables["raw.events"]["rows"] == 2
    assert len(run.status().versions) == 1


def test_a_map_marks_what_succeeded(keeper: KeeperProcess) -> None:
    """Four at once, a failure that is looked at costs nobody else anything; progress is shown."""
    run = run_job(keeper.target, "python", name="mark", function="jobs.py:mark", folder=str(keeper.target.parent))
    status = run.status()
    assert status.phase == Phase.DONE, run.log()
    assert rows(keeper, "SELECT count(*), count(doubled), sum(doubled)::BIGINT FROM numbers") == [(10, 9, 76)]
    assert (status.done, status.total, status.unit, status.details["done"]) == (10, 10, "numbers", 9)


def test_a_cancelled_function_is_interrupted_and_its_batch_written(keeper: KeeperProcess) -> None:
    """Also one that sleeps and never asks whether it should end."""
    settings = {"function": "jobs.py:sleepy", "folder": str(keeper.target.parent)}
    with job_running(keeper.target, "python", name="sleepy", **settings) as run:
        wait_until(lambda: run.status().done == 1, what="its progress")
        assert rows(keeper, "SELECT count(*) FROM slept WHERE n = 1") == [(0,)]  # positive control
        cancel_run(default_home(keeper.target), run.paths.run_id, "a test")
        assert run.ended().phase == Phase.CANCELLED, run.log()
    assert rows(keeper, "SELECT count(*) FROM slept WHERE n = 1") == [(1,)]


def test_what_a_function_raises_is_how_the_run_failed(keeper: KeeperProcess) -> None:
    """A failure in a map that nobody looked at as well; batches are written, a stage that was not complete is not loaded."""
    folder = str(keeper.target.parent)
    careless = run_job(keeper.target, "python", name="careless", function="jobs.py:careless", folder=folder).status()
    assert careless.error is not None
    assert (careless.phase, "ZeroDivisionError" in careless.error["message"]) == (Phase.FAILED, True)
    broken = run_job(keeper.target, "python", name="broken", function="jobs.py:broken", folder=folder)
    assert broken.status().error is not None
    assert "KeyError: 'in the midst'" in broken.status().error["message"]  # type: ignore[index]
    assert "Traceback" in broken.log()
    assert rows(keeper, "SELECT n FROM slept WHERE n = 2") == [(2,)]
    assert rows(keeper, "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'never'") == [(0,)]


def test_a_function_that_cannot_be_called_is_refused_before_it_runs(keeper: KeeperProcess) -> None:
    """Arguments that it does not take are the job's mistake."""
    settings = {"function": "jobs.py:mark", "folder": str(keeper.target.parent), "arguments": '{"colour": "red"}'}
    status = run_job(keeper.target, "python", name="mark", **settings).status()
    assert status.error is not None
    assert (status.error["code"], "colour" in status.error["message"]) == ("job_invalid", True)


@pytest.mark.parametrize(
    ("place", "message"),
    [("one.py:plain", "not decorated"), ("one.py:nobody", "no 'nobody'"), ("two.py", "has 2 functions"), ("none.py:x", "no file"),
     ("no_such_module_here:x", "no module"), ("needy.py", "needs the module 'no_such_module_here'")],
)  # fmt: skip
def test_functions_that_are_not_there_are_named(tmp_path: Path, place: str, message: str) -> None:
    """With what is there instead, and what to do."""
    one = "import pondkeeper\n@pondkeeper.job\ndef first(ctx): pass\ndef plain(ctx): pass\n"
    (tmp_path / "one.py").write_text(one)
    (tmp_path / "two.py").write_text(one + "@pondkeeper.job\ndef second(ctx): pass\n")
    (tmp_path / "needy.py").write_text("import no_such_module_here\n")
    with pytest.raises(JobInvalid, match=message):
        function_of(place, tmp_path)
    assert function_of("one.py", tmp_path).__name__ == "first"


def test_a_decorated_function_stays_a_function() -> None:
    """It can be called, in a test of one's own say."""

    @pondkeeper.job
    def twice(ctx: object, number: int) -> int:
        return 2 * number

    assert twice(None, 4) == 8
