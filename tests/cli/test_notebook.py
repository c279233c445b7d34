"""Notebooks: each on a snapshot of its own, refreshed on demand, in nobody's way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import StartKeeper
from tests.support.keeper import pondkeeper

pytest.importorskip("marimo")
from tests.support.notebook import Visitor, notebook_server

VERSION = r"version (\d+)"
REFRESH = "Newest version"


def test_two_people_have_two_sessions_and_each_its_version(start_keeper: StartKeeper, tmp_path: Path) -> None:
    """A session stays on its version while others write; its button brings the newest, and nobody else's."""
    keeper = start_keeper(tmp_path / "warehouse.duckdb")
    client = keeper.client()
    first = client.execute("CREATE TABLE fish AS SELECT range AS i FROM range(10)").version
    client.query("SELECT 1", at_least=first)
    with (
        notebook_server(tmp_path) as mine,
        notebook_server(tmp_path, "theirs.py") as theirs,
        Visitor(mine) as me,
        Visitor(theirs) as them,
    ):
        assert int(me.find(VERSION)) == int(them.find(VERSION)) >= first
        newer = client.execute("INSERT INTO fish SELECT range FROM range(5)").version
        client.query("SELECT 1", at_least=newer)
        them.click(REFRESH)
        assert int(them.find(VERSION)) >= newer
        assert int(me.find(VERSION)) < newer
        me.click(REFRESH)
        assert int(me.find(VERSION)) >= newer


def test_every_visitor_of_an_app_has_a_session_of_their_own(start_keeper: StartKeeper, tmp_path: Path) -> None:
    keeper = start_keeper(tmp_path / "warehouse.duckdb")
    client = keeper.client()
    client.query("SELECT 1", at_least=client.execute("CREATE TABLE fish (i INT)").version)
    with notebook_server(tmp_path, "--app") as address, Visitor(address) as one:
        newer = client.execute("INSERT INTO fish VALUES (1)").version
        client.query("SELECT 1", at_least=newer)
        with Visitor(address) as another:
            assert int(another.find(VERSION)) >= newer > int(one.find(VERSION))


def test_one_file_has_one_editor(start_keeper: StartKeeper, tmp_path: Path) -> None:
    """Whoever opens a notebook that is open is told so; what is no notebook is refused, and never written to."""
    start_keeper(tmp_path / "warehouse.duckdb")
    with notebook_server(tmp_path):
        refused = pondkeeper("notebook", str(tmp_path / "notebook.py"), "--home", str(tmp_path / ".pondkeeper"))
        assert refused.returncode == 2
        assert "notebook.py is open in another notebook" in refused.stderr
    (tmp_path / "notes.txt").write_text("mine")
    refused = pondkeeper("notebook", str(tmp_path / "notes.txt"), "--home", str(tmp_path / ".pondkeeper"))
    assert refused.returncode == 2
    assert (tmp_path / "notes.txt").read_text() == "mine"
