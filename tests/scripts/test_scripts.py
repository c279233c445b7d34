"""The scripts that a newcomer types work on a bare machine, and are quick the second time."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.support.keeper import REPOSITORY, program_environment

SCRIPTS = [path for path in [*(REPOSITORY / "script").iterdir(), REPOSITORY / ".ci" / "run"] if path.is_file()]


def run(*command: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    environment = program_environment()
    return subprocess.run(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_is_executable_and_parses(script: Path) -> None:
    """A script can be started as it is, and its interpreter understands all of it."""
    assert script.stat().st_mode & 0o111
    text = script.read_text()
    if text.startswith("#!/usr/bin/env python3"):
        compile(text, script.name, "exec")
    else:
        assert run("bash", "-n", str(script)).returncode == 0


def test_an_environment_that_is_ready_costs_nothing() -> None:
    """The second `script/bootstrap` starts in no time: it compares what was installed with what is asked for."""
    if not (REPOSITORY / ".venv" / ".installed").exists():
        pytest.skip("this checkout's own environment was not made by script/bootstrap")
    run("script/bootstrap", "core")
    began = time.monotonic()
    answer = run("script/bootstrap", "core")
    assert answer.stdout == ".venv\n"
    assert time.monotonic() - began < 10.0  # making one takes half a minute


def test_an_engine_line_without_lock_is_refused_by_name() -> None:
    """`--duckdb 9.9.9` says which lines there are instead of installing something unpinned."""
    answer = run("script/bootstrap", "dev", "--duckdb", "9.9.9")
    assert answer.returncode == 1
    assert "no lock for DuckDB 9.9.9" in answer.stderr
    assert "duckdb-2.0.0.txt" in answer.stderr


def test_a_machine_without_a_fitting_python_is_told_so(tmp_path: Path) -> None:
    """Without Python 3.11 the script says what is missing, and makes nothing."""
    copy = tmp_path / "checkout"
    for name in ("script", "requirements"):
        subprocess.run(["cp", "-r", str(REPOSITORY / name), "--target-directory", str(_made(copy))], check=True)
    (copy / "pyproject.toml").write_text("")
    tools = _made(tmp_path / "bin")
    for tool in ("bash", "dirname", "cat", "sha256sum", "cut", "flock", "env"):
        (tools / tool).symlink_to(_which(tool))
    answer = subprocess.run(
        [str(copy / "script" / "bootstrap")], env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert "Python 3.11 or later is needed" in answer.stderr
    assert not (copy / ".venv").exists()


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _which(tool: str) -> str:
    return subprocess.run(["which", tool], capture_output=True, text=True, check=True).stdout.strip()
