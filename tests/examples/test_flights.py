"""The flights warehouse and its dbt project work by themselves, with no keeper near."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from tests.support.keeper import program_environment
from tests.support.warehouse import BUILD, CARRIERS, DBT_PROJECT, FLIGHTS, TOTAL_DISTANCE

DBT = Path(sys.executable).with_name("dbt")
needs_dbt = pytest.mark.skipif(not DBT.exists(), reason="dbt is not installed beside this Python")


def test_the_warehouse_holds_every_flight(flights: Path) -> None:
    """Five tables with the known numbers of rows, missing values as NULL, and primary keys."""
    with duckdb.connect(str(flights), read_only=True) as connection:
        counts = connection.execute(
            "SELECT (SELECT count(*) FROM flights), (SELECT sum(distance) FROM flights), (SELECT count(*) FROM airlines),"
            " (SELECT count(*) FROM weather), (SELECT count(*) FROM flights WHERE dep_time IS NULL)"
        ).fetchone()
        keys = connection.execute(
            "SELECT table_name FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY' ORDER BY ALL"
        ).fetchall()
    assert counts == (FLIGHTS, TOTAL_DISTANCE, CARRIERS, 26_115, 8_255)
    assert [table for (table,) in keys] == ["airlines", "airports", "flights", "planes", "weather"]


def test_building_leaves_an_existing_file_alone(tmp_path: Path) -> None:
    """A warehouse that is there is not touched, whatever it holds: it may have been written to."""
    target = tmp_path / "flights.duckdb"
    target.write_bytes(b"mine")
    subprocess.run([sys.executable, str(BUILD), str(target)], check=True, env=program_environment(), timeout=30)
    assert target.read_bytes() == b"mine"


def dbt_build(database: Path, folder: Path) -> subprocess.Popen[str]:
    command = [str(DBT), "--no-use-colors", "build", "--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT)]
    environment = program_environment(DBT_TARGET_PATH=str(folder / "target"), DBT_LOG_PATH=str(folder / "logs"))
    environment["PONDKEEPER_DATABASE"] = str(database)
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@needs_dbt
def test_dbt_builds_the_project_and_its_views_work_in_a_copy(flights: Path, tmp_path: Path) -> None:
    """Views that name the database work in a copy elsewhere, as long as the file keeps its name."""
    with dbt_build(flights, tmp_path) as build:
        output, _ = build.communicate(timeout=60)
    assert build.returncode == 0, output
    assert "PASS=18 WARN=0 ERROR=0" in output
    copy = tmp_path / "elsewhere" / "flights.duckdb"
    copy.parent.mkdir()
    shutil.copy(flights, copy)
    with duckdb.connect(str(copy), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM analytics.stg_flights").fetchone() == (FLIGHTS,)
        assert connection.execute("SELECT sum(flights)::BIGINT FROM analytics.routes").fetchone() == (FLIGHTS,)


@needs_dbt
@pytest.mark.fault
def test_dbt_waits_for_a_script_that_has_the_file(flights: Path, tmp_path: Path) -> None:
    """A script that holds the file when dbt starts does not fail the build: its profile tries again."""
    hold = "import duckdb, sys; connection = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(flights)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=program_environment(),
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(duckdb.IOException, match="lock"):  # positive control: the file is not to be had
            duckdb.connect(str(flights))
        released_at = time.monotonic() + 5.0
        with dbt_build(flights, tmp_path) as build:
            time.sleep(max(0.0, released_at - time.monotonic()))
            assert build.poll() is None, "dbt gave up or never waited"
            holder.stdin.write(b"\n")
            holder.stdin.flush()
            output, _ = build.communicate(timeout=60)
    assert build.returncode == 0, output
