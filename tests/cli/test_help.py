"""What the program says of itself, and what it loads to say it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pondkeeper.cli.help import ExamplesCommand, ExamplesGroup
from pondkeeper.cli.main import MODULES, cli
from tests.support.keeper import command_line, pondkeeper, program_environment

GOLDEN = Path(__file__).parent / "golden"
HEAVY = {"duckdb", "_duckdb", "pyarrow", "fastapi", "uvicorn", "starlette", "pydantic", "httpx", "rich", "sqlite3"}


def commands(
    path: tuple[str, ...] = (), command: click.Command = cli
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command by the words that lead to it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands((*path, name), found)


EVERY = [pytest.param(path, command, id=" ".join(path) or "pondkeeper") for path, command in commands()]


@pytest.mark.parametrize(("path", "command"), EVERY)
def test_help_pages_are_as_we_left_them(path: tuple[str, ...], command: click.Command) -> None:
    """A change of a help page is seen in review: WRITE_GOLDEN=1 writes them anew."""
    done = pondkeeper(*path, "--help", COLUMNS="100")
    file = GOLDEN / f"{'-'.join(path) or 'pondkeeper'}.txt"
    if os.environ.get("WRITE_GOLDEN"):
        file.write_text(done.stdout)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == file.read_text()


@pytest.mark.parametrize(("path", "command"), EVERY)
def test_every_command_shows_examples(path: tuple[str, ...], command: click.Command) -> None:
    """Whoever asks for help is shown lines to type, each of which begins with words that exist."""
    assert isinstance(command, ExamplesCommand | ExamplesGroup)
    assert command.examples
    for _, line in command.examples:
        assert "pondkeeper" in line


@pytest.mark.parametrize(("path", "command"), EVERY)
def test_no_option_hides_another(path: tuple[str, ...], command: click.Command) -> None:
    """Arguments and options of a command have names of their own, and each option has a help text."""
    names = [parameter.name for parameter in command.params]
    assert len(names) == len(set(names))
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help


def loaded_by(*arguments: str) -> set[str]:
    """The modules that one command line has loaded at its end."""
    code = (
        "import sys, json\nfrom pondkeeper.cli.main import run\n"
        "code = run(sys.argv[1:])\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, env=program_environment()
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [("--help",), *((name, "--help") for name in MODULES), ("completion", "bash")])
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    """Help and completion come at once: no engine, no web stack, no HTTP client."""
    assert loaded_by(*arguments) & HEAVY == set()


def test_the_control_of_what_is_loaded() -> None:
    """A positive control for the test above: settings print a table, and that loads rich."""
    assert "rich" in loaded_by("settings")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str) -> None:
    """Each shell's script names our variable."""
    done = pondkeeper("completion", shell)

    assert done.returncode == 0
    assert "_PONDKEEPER_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("pondkeeper sn", {"snapshot"}),
        ("pondkeeper snapshot ", {"path", "list", "take"}),
        ("pondkeeper query --form", {"--format"}),
        ("pondkeeper query --format ", {"table", "json", "ndjson", "csv", "arrow", "parquet"}),
        ("pondkeeper query --database w", {"warehouse"}),
        ("pondkeeper job run ", {"nightly", "hourly"}),
        ("pondkeeper job show n", {"nightly"}),
        ("pondkeeper job status 2026", {"20261121T031500Z-4f2a9c"}),
        ("pondkeeper job logs ", {"nightly", "hourly", "20261121T031500Z-4f2a9c"}),
    ],
)
def test_completion_knows_commands_options_and_databases(words: str, expected: set[str], tmp_path: Path) -> None:
    """The Tab key offers what fits, names of databases, jobs and runs included."""
    (tmp_path / ".pondkeeper" / "runs" / "20261121T031500Z-4f2a9c").mkdir(parents=True)
    (tmp_path / ".pondkeeper" / "pondkeeper.toml").write_text("[jobs.nightly]\n[jobs.hourly]\n")
    (tmp_path / "warehouse.duckdb").touch()
    (tmp_path / "other.duckdb").touch()
    environment = program_environment(
        _PONDKEEPER_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(len(words.split(" ")) - 1)
    )
    done = subprocess.run(
        command_line(),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
    )

    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == expected


def test_a_mistyped_command_is_guessed() -> None:
    """A wrong command line has exit code 2, goes to stderr, and names the nearest command."""
    done = pondkeeper("qurey", "SELECT 1")

    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean 'query'?" in done.stderr


def test_the_version() -> None:
    """`--version` says which one is installed."""
    from pondkeeper import __version__

    assert pondkeeper("--version").stdout == f"pondkeeper, version {__version__}\n"
