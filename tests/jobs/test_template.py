"""Runs that the template forks: as good as those that are programs of their own, whoever of all of them is killed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pondkeeper.files.paths import Home, default_home
from pondkeeper.jobs.folders import read_status
from pondkeeper.jobs.status import Phase, RunStatus
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.processes import is_alive, tree

SETTINGS = """
[runs]
kill_after_s = 2
{more}
[jobs.files]
kind = "download"
folder = "files"
existing = "replace"
query = "SELECT '{url}/' || range || '.bin' AS url FROM range(3)"
"""
# Why a thread: the template then must not fork, and says so.
WITH_THREAD = """
import sys, threading, time
if "pondkeeper.kinds.template" in sys.orig_argv:
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
"""


class Source:
    """A server that answers once it may."""

    def __init__(self) -> None:
        self.go = threading.Event()
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                source.go.wait(60)
                self.send_response(200)
                self.send_header("Content-Length", "3")
                self.end_headers()
                self.wfile.write(b"abc")

            def log_message(self, *arguments: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@dataclass
class Pond:
    """A keeper with a job of a kind that is forked, and the server that it loads from."""

    folder: Path
    source: Source
    more: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        file = self.folder / "pond.duckdb"
        self.home = Home(default_home(file))
        self.home.root.mkdir()
        self.home.settings_file.write_text(SETTINGS.format(url=self.source.url, more=self.more))
        self.keeper = KeeperProcess(file, environment=self.environment)

    def begun(self) -> RunStatus:
        """A run whose work is under way."""
        run_id = str(self.keeper.local_client().jobs.run("files")["run_id"])
        return wait_until(lambda: self._at(run_id, Phase.EXTRACTING), what="the work")  # type: ignore[no-any-return]  # wait_until returns what it waited for

    def _at(self, run_id: str, phase: Phase) -> RunStatus | None:
        status = read_status(self.home.root, run_id)
        return status if status is not None and status.phase is phase else None

    def ended(self, run_id: str) -> RunStatus:
        """The run, once it may end and has."""
        self.source.go.set()

        def final() -> RunStatus | None:
            status = read_status(self.home.root, run_id)
            return status if status is not None and status.is_final else None

        return wait_until(final, what="the end of the run")  # type: ignore[no-any-return]  # as above

    def template(self) -> int:
        """The pid of the template of runs."""
        [pid] = [pid for pid in tree(self.keeper.pid) if _command(pid).endswith(b"kinds.template") and _parent(pid) == self.keeper.pid and _is_program(pid)]
        return pid


def _command(pid: int) -> bytes:
    return b" ".join(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:4])


def _is_program(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text().strip() != "pond-run"


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _work_of(status: RunStatus) -> int:
    assert status.pid is not None
    [work] = [pid for pid in tree(status.pid) if pid != status.pid]
    return work


@pytest.fixture
def source() -> Iterator[Source]:
    source = Source()
    yield source
    source.go.set()
    source.server.shutdown()
    source.server.server_close()


@pytest.fixture
def pond(tmp_path: Path, source: Source) -> Iterator[Pond]:
    pond = Pond(tmp_path, source)
    with pond.keeper:
        yield pond


def test_supervisor_and_work_are_forks_that_bear_the_mark_of_their_run(pond: Pond) -> None:
    """The supervisor is the keeper's own child, the work the supervisor's; neither has the other's lock or the template's socket."""
    status = pond.begun()
    assert status.pid is not None
    work = _work_of(status)
    assert (_parent(status.pid), _parent(work)) == (pond.keeper.pid, status.pid)
    for pid in (status.pid, work):
        assert _command(pid).endswith(b"kinds.template")
        assert f"PONDKEEPER_RUN={status.run_id}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    held = {str(each.readlink()) for each in Path(f"/proc/{work}/fd").iterdir()}
    assert not any(str(pond.home.run(status.run_id).lock) in each for each in held)
    assert os.getsid(status.pid) == status.pid
    assert os.getpgid(work) == work
    ended = pond.ended(status.run_id)
    assert ended.phase is Phase.DONE, ended.error
    assert "3 downloaded" in pond.home.run(status.run_id).log.read_text()
    wait_until(lambda: status.pid not in tree(pond.keeper.pid), what="the end of its supervisor")
    assert not Path(f"/proc/{status.pid}").exists(), "a zombie"


@pytest.mark.fault
@pytest.mark.parametrize("victim", ["supervisor", "work", "template", "keeper"])
def test_a_forked_run_survives_the_death_of(pond: Pond, victim: str) -> None:
    """kill -9: what is lost begins again, what is not goes on, nothing lives on, and the next run is as good."""
    status = pond.begun()
    assert status.pid is not None
    work = _work_of(status)
    if victim == "keeper":
        pond.keeper.kill9()
        pond.keeper.restart()
    else:
        os.kill({"supervisor": status.pid, "work": work, "template": pond.template()}[victim], signal.SIGKILL)
    if victim == "supervisor":
        wait_until(lambda: not is_alive(work), what="the end of its work")
    ended = pond.ended(status.run_id)
    assert ended.phase is (Phase.FAILED if victim == "work" else Phase.DONE), ended.error
    assert (ended.attempt == 1) is (victim != "supervisor")
    again = str(pond.keeper.local_client().jobs.run("files")["run_id"])
    assert pond.ended(again).phase is Phase.DONE
    wait_until(lambda: not is_alive(work) and not is_alive(status.pid or 0), what="the end of all of it")


def test_a_keeper_that_stops_takes_the_template_and_not_the_run(pond: Pond) -> None:
    """The run goes on to its end without a keeper."""
    status = pond.begun()
    template = pond.template()
    assert pond.keeper.stop() == 0
    assert not is_alive(template)
    assert is_alive(_work_of(status))
    assert pond.ended(status.run_id).phase is Phase.DONE


def test_a_forked_run_ends_with_its_keeper_where_the_setting_says_so(tmp_path: Path, source: Source) -> None:
    """runs.when_keeper_dies = end: supervisor and work are gone with the keeper, and the next one begins the run again."""
    pond = Pond(tmp_path, source, more='when_keeper_dies = "end"')
    with pond.keeper:
        status = pond.begun()
        work = _work_of(status)
        pond.keeper.kill9()
        wait_until(lambda: not is_alive(work) and not is_alive(status.pid or 0), what="the end of the run")
        pond.keeper.restart()
        assert pond.ended(status.run_id).phase is Phase.DONE


def test_a_run_is_cancelled_though_it_was_forked(pond: Pond) -> None:
    """The work hears of it, and ends."""
    status = pond.begun()
    work = _work_of(status)
    pond.keeper.local_client().jobs.cancel(status.run_id)
    wait_until(lambda: not is_alive(work), what="the end of the work")
    assert pond.ended(status.run_id).phase is Phase.CANCELLED


def test_a_template_that_must_not_fork_says_so_and_runs_are_programs(tmp_path: Path, source: Source) -> None:
    """A thread in it: the run is started the other way, and the log says why."""
    customized = tmp_path / "customized"
    customized.mkdir()
    (customized / "sitecustomize.py").write_text(WITH_THREAD)
    pond = Pond(tmp_path, source, environment={"PYTHONPATH": os.pathsep.join([str(customized), *_paths()])})
    with pond.keeper:
        status = pond.begun()
        assert status.pid is not None
        assert _command(status.pid).endswith(b"kinds.supervisor")
        assert "2 threads" in pond.keeper.log()
        assert pond.ended(status.run_id).phase is Phase.DONE


def _paths() -> list[str]:
    repository = Path(__file__).parents[2]
    return [str(repository / "src"), str(repository)]
