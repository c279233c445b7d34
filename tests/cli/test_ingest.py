"""`pondkeeper ingest`: files, patterns and stdin into a table of a running keeper."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pondkeeper.errors import KeeperNotRunning, RowsInvalid
from tests.support.keeper import KeeperProcess, pondkeeper

USAGE = 2


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    with KeeperProcess(tmp_path_factory.mktemp("pond") / "pond.duckdb", "--readers", "2") as keeper:
        keeper.client().execute("CREATE TABLE t (a BIGINT, b VARCHAR)")
        yield keeper


@pytest.fixture
def files(keeper: KeeperProcess, tmp_path: Path) -> Path:
    """Three files, and `t` empty."""
    keeper.client().execute("DELETE FROM t")
    (tmp_path / "one.csv").write_text("a,b\n1,x\n2,y\n")
    (tmp_path / "two.csv").write_text("a,b\n3,z\nno,w\n")
    (tmp_path / "three.ndjson").write_text('{"a": 3}\n')
    return tmp_path


def ran(keeper: KeeperProcess, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return keeper.cli("ingest", *arguments, stdin=stdin)


def content(keeper: KeeperProcess, version: str) -> list[list[object]]:
    return keeper.client().query("FROM t ORDER BY a", at_least=int(version)).rows


def test_a_file(keeper: KeeperProcess, files: Path) -> None:
    """stdout is the version, stderr says what was done."""
    done = ran(keeper, str(files / "one.csv"), "--table", "t")

    assert done.returncode == 0, done.stderr
    assert content(keeper, done.stdout) == [[1, "x"], [2, "y"]]
    assert "2 rows" in done.stderr


def test_a_pattern_as_json(keeper: KeeperProcess, files: Path) -> None:
    """One ingest for each file, in order; rejected rows are written where they were asked for."""
    rejects = files / "bad.ndjson"
    pattern = str(files / "*.csv")

    done = ran(keeper, pattern, str(files / "three.ndjson"), "-t", "t", "--on-error", "reject", "--rejects", str(rejects), "--json")

    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [Path(each["file"]).name for each in said["ingests"]] == ["one.csv", "two.csv", "three.ndjson"]
    assert said["rows"] == 4
    assert len(content(keeper, said["version"])) == 4
    assert [json.loads(line)["line"] for line in rejects.read_text().splitlines()] == [3]


def test_stdin(keeper: KeeperProcess, files: Path) -> None:
    """`-` with a format."""
    done = ran(keeper, "-", "-t", "t", "-f", "ndjson", stdin='{"a": 9}\n')

    assert done.returncode == 0, done.stderr
    assert content(keeper, done.stdout) == [[9, None]]


def test_a_bad_row(keeper: KeeperProcess, files: Path) -> None:
    """The exit code of the error, its line on stderr; files before it are told of."""
    done = ran(keeper, str(files / "one.csv"), str(files / "two.csv"), "-t", "t")

    assert done.returncode == RowsInvalid.exit_code
    assert "line 3" in done.stderr
    assert len(content(keeper, done.stdout)) == 2


def test_create_upsert_evolve_replace(keeper: KeeperProcess, files: Path) -> None:
    """The modes as options."""
    one = str(files / "one.csv")
    assert ran(keeper, one, "-t", "made", "--create").returncode == 0
    assert ran(keeper, "-", "-t", "made", "-f", "csv", "--mode", "upsert", "--on", "a", "--evolve", stdin="a,c\n2,7\n").returncode == 0
    done = ran(keeper, "-", "-t", "made", "-f", "tsv", "--no-header", "--mode", "replace", stdin="5\tv\t1\n")
    assert done.returncode == 0, done.stderr
    assert keeper.client().query("FROM made", at_least=int(done.stdout)).rows == [[5, "v", 1]]


def test_accepted(keeper: KeeperProcess, files: Path) -> None:
    """stdout is the ticket."""
    done = ran(keeper, str(files / "three.ndjson"), "-t", "t", "--wait", "accepted")

    assert done.returncode == 0, done.stderr
    shown = keeper.cli("ticket", "show", done.stdout.strip(), "--json")
    assert json.loads(shown.stdout)["outcome"] in ("waiting", "committed")


@pytest.mark.parametrize(
    "arguments",
    [
        ("none.csv", "-t", "t"),
        ("-", "-t", "t"),
        ("one.csv",),
        ("one.csv", "-t", "t", "--on", "a"),
        ("one.csv", "three.ndjson", "-t", "t", "--mode", "replace"),
        ("one.csv", "three.ndjson", "-t", "t", "--idempotency-key", "k"),
    ],
)
def test_what_cannot_be_meant(keeper: KeeperProcess, files: Path, arguments: tuple[str, ...]) -> None:
    named = [str(files / each) if each.endswith((".csv", ".ndjson")) else each for each in arguments]
    assert ran(keeper, *named).returncode == USAGE


def test_a_name_that_tells_no_format(keeper: KeeperProcess, files: Path) -> None:
    (files / "rows.txt").write_text("a\n1\n")
    assert ran(keeper, str(files / "rows.txt"), "-t", "t").returncode == USAGE
    assert ran(keeper, str(files / "rows.txt"), "-t", "t", "-f", "csv").returncode == 0


def test_without_a_keeper(files: Path) -> None:
    done = pondkeeper("ingest", "--home", str(files), str(files / "one.csv"), "-t", "t")
    assert done.returncode == KeeperNotRunning.exit_code
