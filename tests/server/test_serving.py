"""`pondkeeper serve` as a process: it starts in order, tells who it is once, refuses a second, and leaves in order."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import sys
import threading
from pathlib import Path

from tests.conftest import StartKeeper
from tests.support.keeper import KeeperProcess, keepers, wait_until
from tests.support.processes import is_alive


def test_first_start_prints_a_key_that_works_and_the_second_start_none(start_keeper: StartKeeper) -> None:
    """The admin key is shown once, on stderr, and opens the door ever after; the log itself has no token."""
    keeper = start_keeper()
    assert keeper.client().query("SELECT 42").scalar() == 42
    assert keeper.log().count(keeper.key) == 2  # the key, and the command to try it with
    for line in keeper.log().splitlines():
        assert not (line.startswith("{") and keeper.key in line)
    shown = keeper.log()
    assert keeper.stop() == 0
    keeper.restart()
    assert "Admin key" not in keeper.log()[len(shown) :]
    assert keeper.client().query("SELECT 43").scalar() == 43


def test_signs_of_a_keeper_are_there_while_it_runs(keeper: KeeperProcess) -> None:
    """keeper.json and the control socket are private, true, and gone after a stop."""
    said = json.loads(keeper.home.keeper_json.read_text())
    assert (said["pid"], said["url"]) == (keeper.pid, keeper.url)
    assert said["databases"] == {"pond": str(keeper.target)}
    for path in (keeper.home.keeper_json, keeper.home.socket, keeper.home.control_db):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keeper.local_client().query("SELECT 1").scalar() == 1
    assert keeper.stop() == 0
    assert not keeper.home.keeper_json.exists()
    assert not keeper.home.socket.exists()


def test_second_keeper_is_refused_with_the_name_of_the_first(keeper: KeeperProcess, tmp_path: Path) -> None:
    """On the same home and on another: the error names pid and address, and the first goes on."""
    second = KeeperProcess(keeper.target)
    third = KeeperProcess(keeper.target, home=tmp_path / "elsewhere")
    with keepers(second, third):
        for each in (second, third):
            each.launch()
            assert each.process.wait(60) == 9
            assert str(keeper.pid) in each.log()
            assert keeper.url in each.log()
    assert keeper.client().query("SELECT 1").scalar() == 1


def test_keeper_starts_again_after_it_was_killed(keeper: KeeperProcess) -> None:
    """What a killed keeper left behind is in nobody's way."""
    keeper.kill9()
    assert keeper.home.socket.exists()
    keeper.restart()
    assert keeper.local_client().query("SELECT 1").scalar() == 1


def test_taken_port_is_an_error_with_its_remedy(tmp_path: Path) -> None:
    """Somebody else's port is named, and nothing is left running."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        keeper = KeeperProcess(tmp_path / "pond.duckdb")
        keeper.port = other.getsockname()[1]
        with keepers(keeper):
            keeper.launch()
            assert keeper.process.wait(60) == 2
            assert f"Port {keeper.port}" in keeper.log()
            assert "--port" in keeper.log()


def test_home_deeper_than_a_socket_address(start_keeper: StartKeeper, tmp_path: Path) -> None:
    """The control socket works where its path is longer than the 107 bytes of a socket address."""
    home = tmp_path / ("deep" * 20) / ("deeper" * 10) / ".pondkeeper"
    home.parent.mkdir(parents=True)
    keeper = start_keeper(home=home)
    assert len(os.fsencode(keeper.home.socket)) > 107
    assert keeper.local_client().query("SELECT 1").scalar() == 1


def test_signal_lets_a_query_finish_and_a_second_does_not(start_keeper: StartKeeper) -> None:
    """SIGTERM waits for what runs within the grace; told again, the keeper ends at once, in order."""
    keeper = start_keeper(None, "--grace", "30s", "--timeout", "60s")
    client = keeper.http()
    request = client.build_request(
        "POST",
        "/v1/query",
        json={"sql": "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range + b.range = 1"},
    )

    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(client.send(request).status_code))
    thread.start()
    wait_until(lambda: keeper.local_client().queries(), what="the query")
    keeper.terminate()
    wait_until(lambda: "stopping" in keeper.log(), what="the first signal")
    assert not answers
    assert keeper.is_running()
    keeper.process.send_signal(signal.SIGINT)
    assert keeper.process.wait(40) == 0
    thread.join(20)
    client.close()
    assert answers == [503]


STUCK = """
import asyncio, sys
from pondkeeper.cli.main import main
from pondkeeper.databases.registry import Registry
from pondkeeper.server import last_resort

async def waits_in_vain(registry, grace_s):
    await asyncio.Event().wait()

Registry.stop = waits_in_vain
last_resort.AFTER_S = 1.0
sys.argv = sys.argv[3:]
main()
"""


def test_keeper_whose_stop_gets_stuck_ends_all_the_same(tmp_path: Path) -> None:
    """It says what it waited for, its children end with it, and the next one has all that was acknowledged."""
    program = tmp_path / "stuck.py"
    program.write_text(STUCK)
    served = tmp_path / "pond.duckdb"
    keeper = KeeperProcess(served, under=[sys.executable, str(program)], environment={"PONDKEEPER_SERVER_GRACE_S": "0.5"})
    with keepers(keeper):
        keeper.start()
        keeper.client().execute("CREATE TABLE kept AS SELECT 42 AS n")
        children = keeper.children()
        assert children
        assert keeper.stop() == 1
        assert "waits_in_vain" in keeper.log().splitlines()[-1]
        wait_until(lambda: not any(map(is_alive, children)), what="the end of its children")
    with KeeperProcess(served) as again:
        assert again.client(keeper.key).query("FROM kept").scalar() == 42
