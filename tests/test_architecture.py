"""The rooms stay rooms: what each process loads, how large a file is, that every room says what it is for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.keeper import REPOSITORY, KeeperProcess, program_environment

PACKAGE = REPOSITORY / "src" / "pondkeeper"
MAX_LINES = 400
LONGER = {"errors.py": 900, "tree.py": 600}  # Why: each is one tree, read as one page, and the reference is made of it
ENGINE = {"duckdb", "_duckdb", "pyarrow"}
WEB = {"fastapi", "starlette", "uvicorn", "httptools", "httpx", "uvloop"}
CONTROL = {"sqlite3", "_sqlite3", "pondkeeper.access", "pondkeeper.databases", "pondkeeper.server"}
CHILDREN = ["readers.process", "writer.process", "snapshots.process", "snapshots.repairing.process", "staging.process"]
CHILDREN += ["archive.process", "archive.checking", "archive.restorer", "archive.replica.feeder", "archive.replica.follower"]
KEEPER_ROOMS = ["cli", "local", "server", "client", "jobs", "databases", "access", "files", "settings"]
RUN_TOOLS = {"dlt", "dbt", "psycopg", "marimo"}

IMPORT = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module("pondkeeper." + name)
print(json.dumps(sorted(sys.modules)))
"""


def loaded_by(*modules: str) -> set[str]:
    """What an interpreter of its own has loaded after importing these modules."""
    command = [sys.executable, "-c", IMPORT, *modules]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=program_environment())
    assert answer.returncode == 0, answer.stderr
    return set(json.loads(answer.stdout))


def modules_of(room: str) -> list[str]:
    """The modules of a room by their dotted names below the package."""
    if not (PACKAGE / room).is_dir():
        return [room]
    paths = [path for path in (PACKAGE / room).rglob("*.py") if path.name != "__main__.py"]
    names = [path.relative_to(PACKAGE).with_suffix("").parts for path in paths]
    return sorted({".".join(parts[:-1] if parts[-1] == "__init__" else parts) for parts in names})


def rooms() -> list[str]:
    return sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())


@pytest.mark.parametrize("room", KEEPER_ROOMS)
def test_the_keeper_side_loads_no_engine(room: str) -> None:
    """No module that the keeper process may import loads duckdb or pyarrow, or what only runs need, not even indirectly."""
    assert loaded_by(*modules_of(room)) & (ENGINE | RUN_TOOLS) == set()


def test_the_supervisor_of_a_run_starts_light() -> None:
    """A command that does nothing must not wait for imports: neither the engine, nor the web stack, nor what decodes plans."""
    assert loaded_by("kinds.supervisor") & (ENGINE | WEB | RUN_TOOLS | {"msgspec", "asyncio", "click"}) == set()


@pytest.mark.parametrize("module", CHILDREN)
def test_children_load_neither_web_stack_nor_control_database(module: str) -> None:
    """A child has the engine (the positive control) and nothing by which it could reach keys or the network."""
    loaded = loaded_by("workers.template", module)
    if not module.startswith(("snapshots.", "archive.")):
        assert "duckdb" in loaded
    assert loaded & (WEB | CONTROL) == set()


def test_the_package_itself_loads_nothing() -> None:
    """`import pondkeeper` is light in every process; `write`, `read` and `Client` bring what they need when they are used."""
    code = "import json, sys, pondkeeper; print(json.dumps([sorted(sys.modules), dir(pondkeeper)]))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=program_environment()
    )
    assert answer.returncode == 0, answer.stderr
    loaded, names = json.loads(answer.stdout)
    heavy = ENGINE | WEB | {"asyncio", "msgspec", "click", "ssl", "concurrent"}
    assert set(loaded) & heavy == set()
    assert {"write", "read", "Client"} <= set(names)
    assert loaded_by("local.writing", "local.reading") & (ENGINE | WEB) == set()
    asked = "import sys, pondkeeper; pondkeeper.read, pondkeeper.write, pondkeeper.Client; print('duckdb' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=False, env=program_environment()
    )
    assert answer.stdout == "False\n", answer.stderr


def test_a_running_keeper_has_no_engine_mapped(keeper: KeeperProcess) -> None:
    """After writes and queries the keeper's process still maps neither library; its writer maps DuckDB."""
    version = keeper.client().execute("CREATE TABLE t AS SELECT range AS x FROM range(1000)").version
    assert keeper.client().query("SELECT count(*) FROM t", at_least=version).scalar() == 1000
    mapped = Path(f"/proc/{keeper.pid}/maps").read_text()
    assert "/_duckdb." not in mapped
    assert "libarrow" not in mapped
    reader = keeper.children("reader")[0]
    assert "/_duckdb." in Path(f"/proc/{reader}/maps").read_text()


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(PACKAGE))) for path in PACKAGE.rglob("*.py")])
def test_no_file_outgrows_one_reading(path: Path) -> None:
    """A file that one cannot hold in the head is two files."""
    assert len(path.read_text().splitlines()) <= LONGER.get(path.name, MAX_LINES)


@pytest.mark.parametrize("room", rooms())
def test_every_room_says_what_it_owns(room: str) -> None:
    """Each room has a README that says what it owns and what it refuses."""
    text = (PACKAGE / room / "README.md").read_text()
    assert text.startswith(f"# {room}")
    assert len(text) > 400


def test_no_module_has_a_name_that_says_nothing() -> None:
    """utils, helpers, common, manager and base are drawers, not rooms."""
    empty = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
    assert [str(path) for path in PACKAGE.rglob("*.py") if path.stem in empty] == []


def test_generated_documents_are_fresh() -> None:
    """What docs/reference says of errors, settings and the API is what the code says."""
    command = [sys.executable, str(REPOSITORY / "script" / "support" / "generate_docs.py"), "--check"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=program_environment())
    assert answer.returncode == 0, answer.stderr


def test_the_locks_name_no_host() -> None:
    """The lock files say what is installed, never where from; and every line that pins has hashes."""
    for lock in (REPOSITORY / "requirements").glob("*.txt"):
        text = lock.read_text()
        assert "://" not in text, lock
        pinned = [line for line in text.splitlines() if "==" in line and not line.lstrip().startswith("#")]
        assert pinned
        assert all(line.rstrip().endswith("\\") for line in pinned), lock
