"""The last lines of CI name what failed, and why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.keeper import REPOSITORY

TESTS = """
import pytest

def test_passes():
    pass

@pytest.mark.parametrize("n", [1, 2])
def test_fails(n):
    assert {"outcome": n} == {"outcome": 2}, "a reason"

@pytest.fixture
def broken():
    raise OSError("no such place")

def test_cannot_begin(broken):
    pass
"""


def said(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "script" / "support" / "failures.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_each_failed_test_is_named_with_its_assertion_and_what_passed_is_not(tmp_path: Path) -> None:
    """Of a run of pytest: failures and errors of fixtures; of anything else, its last lines."""
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "no:randomly", "test_it.py", "-o", "junit_family=xunit1", "--junit-xml=run.xml"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    for name, code, log in (("run", run.returncode, run.stdout), ("checks", 1, "all well\nmypy: 1 error\n"), ("other", 0, "quiet\n")):
        (tmp_path / f"{name}.code").write_text(f"{code}\n")
        (tmp_path / f"{name}.log").write_text(log)

    (tmp_path / "lost.code").write_text("none: it was not done\n")

    told = said(tmp_path)

    assert told.returncode == 1
    assert "--- lost: exit code none: it was not done" in told.stdout
    assert "--- run: exit code 1" in told.stdout
    assert "FAILED test_it.py::test_fails[1]\n    E       AssertionError: a reason" in told.stdout
    assert "assert {'outcome': 1} == {'outcome': 2}" in told.stdout
    assert "test_it.py:9: AssertionError" in told.stdout
    assert "test_cannot_begin (failed on setup" in told.stdout
    assert "OSError: no such place" in told.stdout
    assert "mypy: 1 error" in told.stdout
    for name in ("test_passes", "test_fails[2]", "quiet"):
        assert name not in told.stdout


def test_nothing_is_said_when_everything_passed(tmp_path: Path) -> None:
    (tmp_path / "run.code").write_text("0\n")
    assert (said(tmp_path).returncode, said(tmp_path).stdout) == (0, "")
