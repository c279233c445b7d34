"""Jobs of the kind `dlt`: what its sources say of how rows are written, drift, and loads that are cut short."""

from __future__ import annotations

import datetime as dt
import decimal
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pondkeeper.errors import ExtraMissing, JobInvalid, SchemaDrifted
from pondkeeper.files.paths import Home
from pondkeeper.jobs import drift
from pondkeeper.jobs.kinds_settings.dlt import DltSettings
from pondkeeper.jobs.status import Phase
from tests.kinds.running import Started, run_job
from tests.support.keeper import KeeperProcess

pytest.importorskip("dlt")
TWO = """
import dlt

@dlt.source
def pair(size=1):
    return [dlt.resource(({name: each} for each in range(size)), name=name) for name in "ab"]

def rows():
    yield {"id": 1}

def nothing():
    return None
"""
SOURCE = f"{Path(__file__).with_name('shop_source.py')}:shop"


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """A keeper whose database holds something else."""
    with KeeperProcess(tmp_path_factory.mktemp("dlt") / "warehouse.duckdb") as keeper:
        keeper.client().execute("CREATE TABLE other AS SELECT 1 AS id")
        yield keeper


class Shop:
    """The shop's pipeline into a schema of its own."""

    def __init__(self, keeper: KeeperProcess, name: str) -> None:
        self._keeper = keeper
        self.name = name
        self.home_of_job = Home(keeper.home.root).job(name)

    def run(self, day: int, *, drift: str = "allow", resources: tuple[str, ...] = (), **environment: str) -> Started:
        given = {"DAY": str(day), **environment}
        return run_job(
            self._keeper.target, "dlt", name=self.name, source=SOURCE, drift=drift, resources=resources, environment=given
        )

    def done(self, day: int, **options: Any) -> Started:
        run = self.run(day, **options)
        assert run.status().phase == Phase.DONE, run.log()
        return run

    def refused(self, day: int, **options: Any) -> dict[str, Any]:
        run = self.run(day, **options)
        error = run.status().error
        assert run.status().phase == Phase.FAILED, run.log()
        assert error is not None
        return error

    def rows(self, sql: str) -> list[list[Any]]:
        client = self._keeper.local_client()
        version = client.take_snapshot(only_changes=True)["version"]  # Why: who was killed has told nobody of its version.
        answer = client.query(sql.replace("SHOP", self.name), at_least=version)
        return [list(row) for row in answer.rows]

    def events(self) -> list[int]:
        """The ids of all events; each once, or something was loaded twice."""
        return [row[0] for row in self.rows("SELECT id FROM SHOP.events ORDER BY id")]


def test_rows_are_written_as_the_source_says(keeper: KeeperProcess) -> None:
    """Append with a cursor, merge with nested tables, upsert, history of changes, replace; and all of it once again."""
    shop = Shop(keeper, "ways")
    first = shop.done(0).status()
    assert first.tables["ways.events"]["rows"] == 3
    assert len(first.versions) == 1  # one transaction, one version
    assert 0 < first.held_s < (first.finished_at or 0) - (first.started_at or 0)
    second = shop.done(1, REBATE="yes").status()
    assert second.details["drift"] == ["column 'rebate' double of 'customers' is new"]
    assert shop.events() == [0, 1, 2, 3, 4, 5]
    assert shop.rows("SELECT count(*), count(DISTINCT _dlt_parent_id) FROM SHOP.events__tags") == [[12, 6]]
    assert shop.rows("SELECT id, day, rebate FROM SHOP.customers ORDER BY id") == [[each, 1, 1.5] for each in range(4)]
    assert shop.rows("SELECT string_agg(street, ' ' ORDER BY street) FROM SHOP.customers__addresses") == [["1-0 1-1 1-2 1-3"]]
    assert shop.rows("SELECT id, day FROM SHOP.stock ORDER BY id") == [[0, 0], [1, 1], [2, 1], [3, 1], [4, 1]]
    history = shop.rows("SELECT article, price, _dlt_valid_to IS NULL FROM SHOP.prices ORDER BY ALL")
    assert history == [[0, 0, True], [1, 1, False], [1, 2, True], [2, 2, True]]
    [[total, at, on, raw, ok]] = shop.rows('SELECT total::VARCHAR, "at"::VARCHAR, "on"::VARCHAR, hex(raw), ok FROM SHOP.today')
    assert decimal.Decimal(total) == decimal.Decimal("12.25")
    assert dt.datetime.fromisoformat(at) == dt.datetime(2026, 11, 22, 3, 15, tzinfo=dt.UTC)
    assert (on, raw, ok) == ("2026-11-22", "00FF", True)
    left = shop.rows("SELECT sum(estimated_size)::INTEGER FROM duckdb_tables() WHERE schema_name = 'SHOP_staging' AND table_name NOT LIKE '_dlt%'")
    assert left == [[0]]  # what merges need lies there during a load, and is gone with it
    shutil.rmtree(shop.home_of_job)  # another machine, a lost disk: what was loaded is in the database with its rows
    shop.done(2)
    assert shop.events() == list(range(9))


def test_what_is_new_is_refused_or_asked_about_and_nothing_is_lost(keeper: KeeperProcess) -> None:
    """A refused run loads nothing; the next one that may load brings what it had extracted as well."""
    shop = Shop(keeper, "drifting")
    shop.done(0, drift="freeze")  # the first load makes the tables: that is no drift
    wanted = ["column 'rebate' double of 'customers' is new"]
    error = shop.refused(1, drift="freeze", REBATE="yes")
    assert (error["code"], error["changes"]) == ("schema_drifted", wanted)
    assert shop.refused(1, drift="ask", REBATE="yes")["code"] == "schema_drifted"
    assert shop.events() == [0, 1, 2]
    [question] = drift.accept(keeper.home, shop.name)
    assert question.changes == wanted
    shop.done(2, drift="ask", REBATE="yes")
    assert shop.events() == list(range(9))


@pytest.mark.fault
def test_a_run_that_is_killed_is_carried_on_with_once(keeper: KeeperProcess, tmp_path: Path) -> None:
    """kill -9 while it extracts, before its load, and after its load was committed: each row is there once."""
    shop = Shop(keeper, "killed")
    for day, place in enumerate(("extract", "load", "commit"), start=1):
        mark = tmp_path / place
        run = shop.run(day, KILL_AT=place, KILLED=str(mark))
        assert mark.read_text() == place  # positive control: it was killed there
        assert run.status().phase == Phase.FAILED, run.log()
    assert shop.events() == list(range(12))  # what the second had extracted, then what the third had
    last = shop.done(4)
    assert "was committed before" in last.log()
    assert shop.events() == list(range(15))
    assert shop.rows("SELECT id, day FROM SHOP.customers ORDER BY id") == [[each, 4] for each in range(4)]
    assert shop.rows("SELECT count(*) FROM SHOP._dlt_loads GROUP BY load_id HAVING count(*) > 1") == []


def test_a_source_that_fails_says_why() -> None:
    """The run shows the source's own error, not dlt's wrapping of it; one that cannot be reached may be tried again."""
    import requests

    from pondkeeper.kinds.dlt.syncing import told

    def wrapped(error: Exception) -> Exception:
        outer = RuntimeError("Pipeline execution failed at `step=extract` …")
        outer.__cause__ = error
        return outer

    failed = told(wrapped(LookupError("the page is empty\nsecond line")))
    assert (failed.code, failed.message) == ("run_failed", "LookupError: the page is empty")
    assert told(wrapped(requests.exceptions.ConnectionError("refused"))).code == "source_unavailable"
    drifted = SchemaDrifted("new", table="t", changes=[])
    assert told(wrapped(drifted)) is drifted


@pytest.mark.parametrize(
    ("source", "options", "told"),
    [
        ("dlt.sources.nothing:rows", {}, "no module 'dlt.sources.nothing'"),
        ("missing.py:rows", {}, "no file 'missing.py'"),
        ("two.py:pages", {}, "no 'pages' in two.py"),
        ("two.py:pair", {"resources": ("c",)}, "has no resource c; it has: a, b"),
        ("two.py:rows", {"resources": ("a",)}, "is no source with several resources"),
        ("two.py:nothing", {}, "returned nothing to load"),
    ],
)
def test_a_source_that_cannot_be_is_refused(tmp_path: Path, source: str, options: dict[str, Any], told: str) -> None:
    """Before anything is extracted, and with the name of what is wrong."""
    from pondkeeper.kinds.dlt.source import source_of

    (tmp_path / "two.py").write_text(TWO)
    with pytest.raises(JobInvalid, match=re.escape(told)):
        source_of(DltSettings(source=source, **options), tmp_path)


def test_arguments_and_resources_of_a_source(tmp_path: Path) -> None:
    """A function gets its arguments, and of its resources only those that the job names."""
    from pondkeeper.kinds.dlt.source import source_of

    (tmp_path / "two.py").write_text(TWO)
    chosen = source_of(DltSettings(source="two.py:pair", arguments='{"size": 2}', resources=("b",)), tmp_path)
    assert list(chosen) == [{"b": 0}, {"b": 1}]


def test_secrets_of_dlt_are_hidden(tmp_path: Path) -> None:
    """Every text in `.dlt/secrets.toml`, however deep, is kept out of the log; no such file is no error."""
    from pondkeeper.kinds.dlt.source import hide_secrets

    hidden: list[str] = []
    hide_secrets(tmp_path, hidden.append)
    assert hidden == []
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "secrets.toml").write_text('a = "one"\n[sources.github]\ntoken = "two"\nmore = ["three", 4]\n')
    hide_secrets(tmp_path, hidden.append)
    assert hidden == ["one", "two", "three"]


def test_a_keeper_without_dlt_is_told_of_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where dlt is not installed the run names what to install."""
    from pondkeeper.kinds.dlt import run as kind

    plan = SimpleNamespace(database_file=tmp_path / "shop.duckdb", workdir=tmp_path, job=SimpleNamespace(name="orders"))
    context: Any = SimpleNamespace(plan=plan, settings=DltSettings(source="a.py:b"), home_of_job=tmp_path)
    monkeypatch.setattr(kind, "_prepare", lambda context, folder: None)  # it changes the process
    monkeypatch.setitem(sys.modules, "dlt", None)
    with pytest.raises(ExtraMissing) as raised:
        kind.run(context)
    assert "pondkeeper[dlt]" in raised.value.remedy
