"""Files that cannot be served: each is a clear error of its own, is left as it is, and harms no other database."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.bad_input import files
from tests.bad_input.files import BROKEN, Broken
from tests.support.keeper import KeeperProcess, keepers, pondkeeper, wait_until

AT_ONCE_S = 15.0  # far above what it takes, and far below the deadline of a query
BETWEEN_TWO_LOOKS_S = 6.0  # and a little more
each_broken = pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """A keeper on a folder of broken files with a sound one among them."""
    folder = tmp_path_factory.mktemp("zoo")
    files.good(folder / "good.duckdb")
    for broken in BROKEN:
        broken.make(folder / f"{broken.name}.duckdb")
    with KeeperProcess(folder) as keeper:
        wait_until(
            lambda: all(state != "starting" for state in states(keeper).values()), what="a verdict on every file"
        )
        keeper.judged_at = time.monotonic()  # type: ignore[attr-defined]  # the fixture's own note
        yield keeper


def states(keeper: KeeperProcess) -> dict[str, str]:
    return {state["name"]: state["state"] for state in keeper.local_client().databases()}


def post(keeper: KeeperProcess, database: str, verb: str, sql: str) -> httpx.Response:
    with keeper.http() as http:
        return http.post(f"/v1/databases/{database}/{verb}", json={"sql": sql})


@each_broken
def test_a_query_is_refused_at_once(zoo: KeeperProcess, broken: Broken) -> None:
    """The error names the fault and what to do, does not wait for the deadline, and invites nobody to try again."""
    began = time.monotonic()
    answer = post(zoo, broken.name, "query", "SELECT 1")
    assert time.monotonic() - began < AT_ONCE_S
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, broken.code)
    assert broken.says in error["message"]
    assert error["remedy"]
    assert "retry-after" not in answer.headers
    assert str(zoo.target) not in error["message"] + error["remedy"]


@each_broken
def test_a_write_is_refused_at_once(zoo: KeeperProcess, broken: Broken) -> None:
    """So is a write, by the same name, also where DuckDB would take it: it would be lost with the file."""
    before = (zoo.target / f"{broken.name}.duckdb").read_bytes()
    answer = post(zoo, broken.name, "execute", "CREATE TABLE mine AS SELECT 1 AS x")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, broken.code)
    assert (zoo.target / f"{broken.name}.duckdb").read_bytes() == before


@each_broken
def test_the_command_line_says_it_too(zoo: KeeperProcess, broken: Broken) -> None:
    """`query` ends with 6 and says code, fault and remedy; `status` shows it; `check` finds a problem."""
    query = zoo.cli("query", "-d", broken.name, "SELECT 1")
    assert query.returncode == 6
    assert f"[{broken.code}]" in query.stderr
    assert query.stdout == ""
    status = zoo.cli("status")
    assert status.returncode == 0
    assert f"{broken.name}: " in status.stdout
    assert f"[{broken.code}]" in status.stdout


@each_broken
def test_the_doctor_finds_it(zoo: KeeperProcess, broken: Broken) -> None:
    """`check FILE` names the fault without opening the file in DuckDB, before anybody serves it."""
    found = pondkeeper("check", str(zoo.target / f"{broken.name}.duckdb"))
    assert found.returncode == 1, found.stdout
    assert any(line.startswith("problem") and broken.name in line for line in found.stdout.splitlines()), found.stdout


def test_the_sound_database_beside_them_is_served(zoo: KeeperProcess) -> None:
    """What is wrong with one file is no other's business, and the keeper says that it is ready."""
    with zoo.http() as http:
        assert http.get("/health/ready").status_code == 200
    client = zoo.client(database="good")
    version = client.execute("CREATE OR REPLACE TABLE mine AS SELECT 42 AS x").version
    assert client.query("FROM mine", at_least=version).scalar() == 42
    assert states(zoo) == {"good": "ready", **{broken.name: "unavailable" for broken in BROKEN}}


def test_what_fails_again_and_again_is_logged_once(zoo: KeeperProcess) -> None:
    """A file that stays broken does not fill the log: it is looked at again every few seconds, and told once."""
    time.sleep(max(0.0, zoo.judged_at + BETWEEN_TWO_LOOKS_S - time.monotonic()))  # type: ignore[attr-defined]  # the fixture's own note
    lines = [json.loads(line) for line in zoo.log().splitlines() if "nothing can be published" in line]
    told = [(line["database"], line["error"]["message"]) for line in lines]
    # Why a damaged one may be told of twice: what the copier met is looked into, which says what can be done about it.
    assert len(told) == len(set(told)) <= len(BROKEN) + 1
    assert {name for name, _ in told} == {broken.name for broken in BROKEN}


def test_a_file_of_duckdb_2_is_too_new_for_1_5(tmp_path: Path, duckdb_version: tuple[int, ...]) -> None:
    """What 2.0 makes by default is refused by 1.5.5 with the remedy, and served by 2.0."""
    files.made_by_2_0(tmp_path / "two.duckdb")
    keeper = KeeperProcess(tmp_path / "two.duckdb")
    with keepers(keeper):
        keeper.launch()
        state = "ready" if duckdb_version >= (2, 0) else "unavailable"
        wait_until(lambda: state in keeper.cli("status").stdout, timeout_s=30, what=state)
        query = keeper.cli("query", "SELECT 1")
        if state == "ready":
            assert query.returncode == 0
        else:
            assert query.returncode == 6
            assert "[database_too_new]" in query.stderr
            assert "pip install -U duckdb" in query.stderr


def test_a_keeper_of_one_broken_file_runs_and_serves_it_once_it_is_mended(tmp_path: Path) -> None:
    """It says that it is not ready, and why; when the file is replaced by a sound one, that is served without a restart."""
    file = tmp_path / "pond.duckdb"
    files.truncated(file)
    keeper = KeeperProcess(file)
    with keepers(keeper):
        keeper.launch()
        wait_until(lambda: "database_unreadable" in keeper.cli("status").stdout, timeout_s=30, what="a verdict")
        assert not keeper.is_ready()
        assert keeper.is_running()
        files.good(tmp_path / "sound.file", rows=7)
        shutil.move(tmp_path / "sound.file", file)
        keeper.wait_ready()
        assert keeper.client().query("SELECT count(*) FROM t").scalar() == 7
        assert keeper.local_client().status()["problem"] is None


def test_a_name_that_cannot_be_a_database_is_refused_at_the_start(tmp_path: Path) -> None:
    """A name goes into URLs and SQL; one that cannot is said at the start, with the remedy."""
    files.good(tmp_path / "two words.duckdb", rows=1)
    answer = pondkeeper("serve", str(tmp_path / "two words.duckdb"), "--port", "0")
    assert answer.returncode == 2
    assert "two words.duckdb" in answer.stderr
    assert "Rename the file" in answer.stderr


def test_a_path_that_does_not_exist_is_made_only_where_its_name_says_that_it_is_a_database(tmp_path: Path) -> None:
    """A mistyped folder does not become a file."""
    answer = pondkeeper("serve", str(tmp_path / "tenant"), "--port", "0")
    assert answer.returncode == 2
    assert "There is no 'tenant'" in answer.stderr
    assert ".duckdb" in answer.stderr
    assert not (tmp_path / "tenant").exists()


def test_a_folder_without_a_database_is_said_to_be_empty(tmp_path: Path) -> None:
    """A keeper of an empty folder runs, and a request to it says what is missing."""
    with keepers(KeeperProcess(tmp_path)) as (keeper,):
        keeper.start()
        done = keeper.cli("query", "SELECT 1")
        assert done.returncode == 2
        assert "has no database" in done.stderr
