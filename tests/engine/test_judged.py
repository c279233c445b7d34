"""Every function, setting and kind of statement of the installed engine has been judged, and the verdicts are carried out."""

from __future__ import annotations

import subprocess
import sys

import duckdb
import pytest

from pondkeeper.engine import judged
from pondkeeper.engine.statements import reading_statement
from pondkeeper.errors import PondkeeperError, StatementNotAllowed
from tests.support.keeper import REPOSITORY, program_environment


def test_nothing_of_the_installed_engine_is_unjudged() -> None:
    assert judged.unjudged() == {}
    assert min(map(len, judged.catalogue().values())) >= 30  # the control: the engine was asked, and has answered


def test_what_is_new_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function, a setting and a kind of statement that are not on the list; and a line that has no list at all."""
    known = judged.judged(judged.line())
    assert known is not None
    less = {kind: {name: known[kind][name] for name in list(known[kind])[1:]} for kind in judged.KINDS}
    monkeypatch.setattr(judged, "judged", lambda line: less)
    assert judged.unjudged() == {kind: [next(iter(known[kind]))] for kind in judged.KINDS}
    monkeypatch.undo()
    assert judged.judged("9.9") is None


def test_the_list_is_what_the_script_makes() -> None:
    """The verdicts in the list follow from the rules as they are now."""
    command = [sys.executable, str(REPOSITORY / "script" / "judge-engine"), "--check"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=program_environment())
    assert answer.returncode == 0, answer.stderr


def test_verdicts_are_carried_out() -> None:
    """Each function is refused, or not, as its verdict says; whichever way its name is written."""
    known = judged.judged(judged.line())
    assert known is not None
    with duckdb.connect(":memory:") as connection:
        for name, verdict in known["functions"].items():
            if not name.isidentifier() or verdict == "for some settings":
                continue
            for written in (name, name.upper(), f'"{name}"', f"system.main.{name}"):
                assert _is_refused(connection, f"SELECT * FROM {written}('x')") is verdict.startswith("refused"), (
                    written
                )


def _is_refused(connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
    try:
        reading_statement(connection, sql)
    except StatementNotAllowed:
        return True
    except PondkeeperError:  # a word such as `log` that the grammar keeps for itself
        return False
    return False
