"""Who gives way to others does so with all its threads; and whether that can be taken back is known before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pondkeeper.workers import precedence
from tests.support.keeper import program_environment

THREADS = "import threading; [threading.Thread(target=threading.Event().wait, daemon=True).start() for _ in range(3)]; print(1, flush=True); input()"
TRIES = """
import os, subprocess, sys
from pondkeeper.workers import precedence
with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as child:
    precedence.give_way(child.pid)
    lowered = os.getpriority(os.PRIO_PROCESS, child.pid)
    print(precedence.can_be_taken_back(), lowered, precedence.go_first(child.pid), os.getpriority(os.PRIO_PROCESS, child.pid))
    child.kill()
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """A process of its own session with four threads."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", THREADS], stdin=pipe, stdout=pipe, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def nices(pid: int) -> set[int]:
    return {os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir(f"/proc/{pid}/task")}


def group_of(pid: int) -> str:
    group = Path(f"/proc/{pid}/autogroup")
    return group.read_text() if group.exists() else ""


def test_all_threads_give_way_and_go_first_again(child: subprocess.Popen[str]) -> None:
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    before = group_of(child.pid)
    precedence.give_way(child.pid)
    assert nices(child.pid) == {min(19, own + precedence.STEPS)}
    assert precedence.go_first(child.pid) or not precedence.can_be_taken_back()
    if precedence.can_be_taken_back():
        assert nices(child.pid) == {own}
        assert group_of(child.pid) == before


def test_who_is_in_the_root_group_can_let_children_give_way(
    child: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells nothing of the group of a process whose session is that of init: its group file is empty."""
    root_group = tmp_path / "autogroup"
    root_group.write_text("")
    monkeypatch.setattr(precedence, "_OWN_GROUP", root_group)
    before = group_of(child.pid)
    precedence.give_way(child.pid)
    if before:
        assert group_of(child.pid).endswith(f" nice {precedence.STEPS}\n")
    assert precedence.go_first(child.pid) or not precedence.can_be_taken_back()
    if precedence.can_be_taken_back():
        assert group_of(child.pid) == before


def test_who_has_ended_is_no_error(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()
    precedence.give_way(child.pid)
    assert precedence.go_first(child.pid)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only who has privileges can go without")
def test_without_privileges_one_gives_way_for_good_and_knows_it() -> None:
    bare = ["setpriv", "--bounding-set=-sys_nice,-sys_admin", "--inh-caps=-all"]
    command = [*bare, sys.executable, "-c", TRIES]
    told = subprocess.run(command, capture_output=True, text=True, env=program_environment(), check=True).stdout.split()
    can_be_taken_back, lowered, went_first, nice = told
    assert (can_be_taken_back, went_first) == ("False", "False")
    assert lowered == nice != "0"
