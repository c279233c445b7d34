"""The supervisor of a run: what it says at the end, whom it ends, what it leaves behind (nothing), and what it hides."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pondkeeper.files.locks import is_flocked
from pondkeeper.jobs.endings import cancel_run, settle_lost
from pondkeeper.jobs.orphans import end_orphans
from pondkeeper.jobs.status import Phase
from tests.kinds.bench import Bench, all_gone
from tests.support.keeper import wait_until
from tests.support.processes import is_alive

# Leaves its group and its session, and so whatever is sent to them.
# Why os.write: two write at once, and with PYTHONUNBUFFERED a print is several writes, that fall between each other.
LEAVES_A_DAEMON = """
import os, signal, sys, time
read_end, write_end = os.pipe()
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(1, b"daemon %d\\n" % os.getpid())
    os.write(write_end, b"!")
    time.sleep(600)
os.read(read_end, 1)
os.write(1, b"leader %d\\n" % os.getpid())
"""
SLEEPS = 'echo "there $$"; sleep 600 & wait'
DEAF = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('there', os.getpid(), flush=True); time.sleep(600)"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.dispose()


def test_a_command_is_done_with_its_log_and_nothing_left(bench: Bench) -> None:
    """Its output stands in the log with moments, of stdout and stderr; the status says how it ended; staging is gone."""
    run = bench.script("echo out; echo err >&2; pwd; test -d $PONDKEEPER_HOME && printf $PONDKEEPER_RUN").start()
    status = run.ended()
    assert (status.phase, status.exit_code, status.error) == (Phase.DONE, 0, None), run.log()
    assert status.started_at is not None
    assert status.finished_at is not None
    lines = [line.partition("Z ")[2] for line in run.log().splitlines()]
    assert lines[1:-1] == ["out", "err", str(bench.home.root.parent), run.paths.run_id]
    assert not run.paths.staging.exists()
    assert stat.S_IMODE(run.paths.log.stat().st_mode) == 0o600
    assert not is_flocked(run.paths.lock)


def test_a_failed_attempt_is_queued_again_with_waits_that_double_until_none_is_left(bench: Bench) -> None:
    """`retries = 2` is three attempts of one run; only the last one's failure is final."""
    run = bench.script("exit 3", retries=2, retry_wait_s=100.0)
    waits = []
    for attempt in (2, 3):
        began = time.time()
        status = run.start().ended()
        assert (status.phase, status.attempt, status.trigger) == (Phase.QUEUED, attempt, "retry")
        assert status.error is not None
        assert status.error["exit_code"] == 3
        assert status.not_before is not None
        waits.append(status.not_before - began)
    assert waits == [pytest.approx(100, abs=20), pytest.approx(200, abs=20)]
    status = run.start().ended()
    assert (status.phase, status.failures, status.exit_code) == (Phase.FAILED, 3, 3)
    assert [each["attempt"] for each in status.details["failed_attempts"]] == [1, 2, 3]


def test_what_cannot_be_started_is_not_tried_again(bench: Bench) -> None:
    """A program that is not there will not be there the next time."""
    status = bench.run("there-is-no-such-program", retries=5).start().ended()
    assert status.phase is Phase.FAILED
    assert status.error is not None
    assert status.error["code"] == "job_invalid"


def test_a_signal_that_killed_the_program_is_named(bench: Bench) -> None:
    """Whoever reads the status learns that somebody killed it, and that the kernel may have."""
    status = bench.script("kill -9 $$").start().ended()
    assert (status.phase, status.exit_code) == (Phase.FAILED, 137)
    assert status.error is not None
    assert "SIGKILL" in status.error["message"]


@pytest.mark.parametrize("how", ["signal", "file"])
def test_a_cancelled_run_ends_with_its_children(bench: Bench, how: str) -> None:
    """SIGTERM reaches the whole group; who may not send the supervisor a signal leaves a file, which is enough."""
    run = bench.script(SLEEPS).start()
    shell = run.said("there")
    if how == "signal":
        assert cancel_run(bench.home.root, run.paths.run_id, "a test").phase is Phase.RUNNING
    else:
        run.paths.cancel_json.write_text('{"by": "a test"}')
    status = run.ended()
    assert (status.phase, status.exit_code) == (Phase.CANCELLED, 143)
    assert status.error is not None
    assert "a test" in status.error["message"]
    assert all_gone([shell])


def test_who_does_not_hear_sigterm_is_killed(bench: Bench) -> None:
    """After `runs.kill_after_s`, and not before."""
    run = bench.python(DEAF, bounds={"kill_after_s": 0.5}).start()
    deaf = run.said("there")
    began = time.monotonic()
    cancel_run(bench.home.root, run.paths.run_id, "a test")
    status = run.ended()
    assert time.monotonic() - began >= 0.5
    assert (status.phase, status.exit_code) == (Phase.CANCELLED, 137)
    assert not is_alive(deaf)


def test_a_time_limit_ends_the_attempt(bench: Bench) -> None:
    """`timeout_s` is a failure like any other: it says so, and retries count it."""
    status = bench.script(SLEEPS, timeout_s=0.2, retries=1).start().ended()
    assert (status.phase, status.failures) == (Phase.QUEUED, 1)
    assert status.error is not None
    assert status.error["code"] == "run_timed_out"


def test_nothing_that_a_program_starts_outlives_it(bench: Bench) -> None:
    """Not even a daemon in a session of its own that is deaf to SIGTERM. Done is done all the same."""
    run = bench.python(LEAVES_A_DAEMON, bounds={"kill_after_s": 0.3}).start()
    daemon = run.said("daemon")
    assert run.ended().phase is Phase.DONE
    assert all_gone([daemon])


@pytest.mark.fault
def test_a_killed_supervisor_takes_its_program_along_and_the_rest_is_found(bench: Bench) -> None:
    """The kernel ends the program; a daemon lives on (the control), is found by its environment, and ended."""
    run = bench.python(LEAVES_A_DAEMON + "time.sleep(600)").start()
    daemon, leader = run.said("daemon"), run.said("leader")
    run.signal(signal.SIGKILL)
    run.code()
    wait_until(lambda: all_gone([leader]), what="the end of the program")
    assert is_alive(daemon)
    assert end_orphans("20200101T000000Z-000000") == 0
    assert is_alive(daemon)
    settled = settle_lost(run.paths)
    assert all_gone([daemon])
    assert settled is not None
    assert (settled.phase, settled.error and settled.error["code"]) == (Phase.FAILED, "run_lost")


@pytest.mark.fault
def test_a_lost_command_begins_again_only_where_it_may(bench: Bench) -> None:
    """Nobody knows how far a command came; `retries` says that it may be repeated."""
    run = bench.script(SLEEPS, retries=1).start()
    run.said("there")
    assert settle_lost(run.paths) is None  # it lives
    run.signal(signal.SIGKILL)
    run.code()
    settled = settle_lost(run.paths)
    assert settled is not None
    assert (settled.phase, settled.attempt, settled.trigger) == (Phase.QUEUED, 2, "resumed")


def test_who_is_ended_with_the_machine_begins_again(bench: Bench) -> None:
    """SIGTERM without a cancellation (a machine that stops sends it to everybody) is no failure of the run."""
    run = bench.script(SLEEPS, retries=1).start()
    run.said("there")
    run.signal(signal.SIGTERM)
    status = run.ended()
    assert (status.phase, status.trigger, status.attempt) == (Phase.QUEUED, "resumed", 2)


def test_a_run_that_is_to_die_with_its_keeper_does(bench: Bench) -> None:
    """The kernel closes the keeper's end of a pipe when it dies, whatever it died of."""
    ours, keepers = os.pipe()
    run = bench.script(SLEEPS, retries=1).start(keeper_fd=ours)
    os.close(ours)
    shell = run.said("there")
    os.close(keepers)
    status = run.ended()
    assert (status.phase, status.trigger) == (Phase.QUEUED, "resumed")
    assert all_gone([shell])


def test_there_is_one_supervisor_for_an_attempt(bench: Bench) -> None:
    """A second one gives up while the first lives, and after its end."""
    run = bench.script(SLEEPS).start()
    shell = run.said("there")
    first = run.supervisor
    assert run.start().code() == 75
    assert is_alive(shell)
    run.supervisor = first
    cancel_run(bench.home.root, run.paths.run_id, "a test")
    run.ended()
    assert run.start().code() == 75
    assert run.log().count("attempt 1 of run") == 1


def test_cancelled_before_it_began(bench: Bench) -> None:
    """It is over at once, and a supervisor that comes later does nothing."""
    run = bench.script("echo began")
    assert cancel_run(bench.home.root, run.paths.run_id, "a test").phase is Phase.CANCELLED
    assert run.start().code() == 75
    assert "began" not in run.log()


def test_secrets_are_hidden_whole_and_in_pieces(bench: Bench) -> None:
    """A secret of the environment, one that looks like one, and one that comes in two writes: none is in the log."""
    text = "printf 'ses'; sleep 0.2; printf 'ame-17 and on\\n'; echo url postgres://me:hunter22@db/x; echo api_key=abcdef"
    run = bench.script(text, settings={"environment": {"TOKEN": "env:OUR_TOKEN"}}).start(OUR_TOKEN="sesame-17")
    run.ended()
    assert "*** and on" in run.log()
    for secret in ("sesame-17", "ame-17", "hunter22", "abcdef"):
        assert secret not in run.log()


def test_too_long_a_log_keeps_beginning_and_end(bench: Bench) -> None:
    """The middle is left out, and the log says so; the run itself does not mind."""
    text = "i=0; while [ $i -lt 40000 ]; do echo line $i; i=$((i+1)); done"
    run = bench.script(text, bounds={"max_log_bytes": 64 * 1024}).start()
    assert run.ended().phase is Phase.DONE
    lines = run.log().splitlines()
    assert run.paths.log.stat().st_size < 200 * 1024
    assert lines[1].endswith("line 0")
    assert lines[-2].endswith("line 39999")
    assert sum("lines are left out here" in line for line in lines) == 1


def test_who_loses_his_folder_ends(bench: Bench) -> None:
    """A home that was removed must leave nothing behind that works on for nobody."""
    run = bench.script(SLEEPS).start()
    shell = run.said("there")
    shutil.rmtree(bench.home.root)
    assert run.code() == 0
    assert all_gone([shell])


def test_who_stages_too_much_is_ended(bench: Bench) -> None:
    """A run must not fill the disk of the databases."""
    run = bench.script(
        "head -c 3000000 /dev/zero > $PONDKEEPER_HOME/runs/$PONDKEEPER_RUN/staging/much; sleep 600",
        bounds={"staging_limit_bytes": 2 * 1024 * 1024},
    ).start()
    status = run.ended()
    assert status.phase is Phase.FAILED
    assert status.error is not None
    assert "staging_limit_bytes" in status.error["message"]
