"""States of a disk after a power cut, drawn from the calls of a recorded program, and what becomes of each."""

from __future__ import annotations

import json
import os
import queue
import random
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import duckdb

from campaigns.diskstates import Disk, Tree, lay_out, read_tree
from campaigns.injecting import why_no_tracer
from campaigns.powerwork import LOOK, Step, draw
from campaigns.recovering import NOTHING
from campaigns.running import Stage
from campaigns.tracing import Call, read_trace, tracer
from pondkeeper.client import Client
from pondkeeper.engine.fileformat import block_offset, read_block_use, read_headers
from pondkeeper.engine.opening import NEW_FILE_STORAGE_VERSION
from pondkeeper.errors import PondkeeperError
from pondkeeper.files.durable import make_folder
from pondkeeper.files.paths import DatabasePaths, default_home
from pondkeeper.snapshots.cancelling import Cancelling
from pondkeeper.snapshots.copier import Copier
from tests.support.keeper import KeeperProcess, program_environment

LONG_STATES, SHORT_STATES = 20_000, 500
KEEPER_EVERY_LONG, KEEPER_EVERY_SHORT = 100, 60  # from so many states one is started by a whole keeper
KEEPER_S = 120.0
LONG_STEPS, SHORT_STEPS = 60, 12
LEAST_STATES = 120  # whatever the time: with fewer the controls may not be among them
STATES_PER_RECORD = 1_000
REPAIR_SHARE = 5  # a fifth as many states of a repair
WORKERS = 2
MOST_PLAIN = 40
RECORD_S = 300.0
FAST = Path("/dev/shm")  # what is rebuilt here was never anywhere else
PLACES = ("file", "file", "wal", "anywhere")  # where a cut is made: half of them while the database file is written


@dataclass
class State:
    """One tree, and the steps of which it may hold the outcome: the last one acknowledged, and the one begun after it.

    `archived`: the newest version that the archive must have.
    """

    number: int
    tree: Tree
    done: int
    begun: int
    call: str
    archived: int = 0


def play_calls(stage: Stage) -> None:
    """Records of a keeper at work, and states of each."""
    if (reason := why_no_tracer()) is not None:
        stage.line(skipped=f"no tracer: {reason}")
        return
    wanted = stage.options.of(LONG_STATES, SHORT_STATES)
    chance = stage.chance
    told: Counter[str] = Counter()
    plain: list[str] = []
    made = record = 0
    while made < wanted and stage.has_time:
        record += 1
        steps = draw(chance, SHORT_STEPS if stage.options.short else LONG_STEPS)
        folder = stage.room(f"record-{record}")
        calls = _recorded(stage, folder, steps)
        count = min(STATES_PER_RECORD, wanted - made)
        states = _states(calls, folder / "root", {}, count, chance)
        made += _try_all(stage, states, expected(steps), told, plain, folder, keepers=True)
        if not stage.violations and not stage.options.keep:
            shutil.rmtree(folder)
    stage.line(summary=True, states=made, records=record, told=dict(told))
    stage.control("plain DuckDB fails on some of the same states", plain, failed=len(plain))


def expected(steps: list[Step]) -> list[Any]:
    """What the database holds after each step, by DuckDB itself, in memory."""
    found: list[Any] = []
    with duckdb.connect() as connection:
        for step in steps:
            if "restore" in step:
                found.append(found[step["restore"]])
                _become(connection, steps[: step["restore"] + 1])
                continue
            for statement in step.get("sql", ()):
                connection.execute(statement)
            found.append(json.loads(json.dumps(connection.execute(LOOK).fetchone(), default=str)))
    return found


def _become(connection: duckdb.DuckDBPyConnection, steps: Iterable[Step]) -> None:
    connection.execute("DROP TABLE a")
    connection.execute("DROP TABLE b")
    for step in steps:
        for statement in step.get("sql", ()):
            connection.execute(statement)


def _recorded(stage: Stage, folder: Path, steps: list[Step]) -> list[Call]:
    """The calls of the work, after it has ended well."""
    root, marks, plan, log = folder / "root", folder / "marks", folder / "steps.json", folder / "calls.strace"
    root.mkdir()
    plan.write_text(json.dumps(steps))
    command = [*tracer(log), sys.executable, "-m", "campaigns.powerwork", str(root), str(marks), str(plan)]
    done = subprocess.run(
        command, env=program_environment(), capture_output=True, text=True, check=False, timeout=RECORD_S, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise RuntimeError(f"the work that is recorded failed: {done.stderr[-2000:]}")
    calls = list(read_trace(log, root, marks))
    log.unlink()
    shutil.rmtree(root)
    stage.say(f"recorded {len(calls)} calls of {len(steps)} steps")
    return calls


def _states(calls: list[Call], root: Path, before: Tree, count: int, chance: random.Random) -> Iterator[State]:
    """States of cuts drawn at random, in the order of the record, so that it is walked through once."""
    kinds = _kinds_of_places(calls)
    drawn = Counter(chance.choice(kinds[chance.choice(PLACES)] or kinds["anywhere"]) for _ in range(count))
    disk = Disk(root)
    disk.begin_with(before)
    done, begun, archived, made = -1, -1, 0, 0
    for number, call in enumerate(calls):
        disk.take(call)
        if call.name == "mark":
            what, _, value = call.data.decode().strip().partition(" ")
            done = int(value) if what == "done" else done
            begun = int(value) if what == "begin" else begun
            archived = int(value) if what == "archived" else archived
        for _ in range(drawn[number]):
            made += 1
            yield State(made, disk.after_a_cut(chance), done, begun, f"{call.name} {Path(call.path).name}", archived)


def _kinds_of_places(calls: list[Call]) -> dict[str, list[int]]:
    """The calls after which a cut may be made, by what they are about."""
    kinds: dict[str, list[int]] = {"file": [], "wal": [], "anywhere": []}
    for number, call in enumerate(calls):
        if call.name in ("lseek", "mark"):
            continue
        kinds["anywhere"].append(number)
        if "/snapshots/" not in call.path and Path(call.path).name in ("pond.duckdb", "pond.duckdb.wal"):
            kinds["wal" if call.path.endswith(".wal") else "file"].append(number)
    return kinds


def _try_all(
    stage: Stage,
    states: Iterator[State],
    right: list[Any],
    told: Counter[str],
    plain: list[str],
    folder: Path,
    *,
    keepers: bool = False,
) -> int:
    """Start from each state, with `keepers` from some of them as a whole; how many there were."""
    place = (FAST if FAST.is_dir() else folder) / f"pondkeeper-{folder.parent.name}-{folder.name}-{stage.options.seed}"
    place.mkdir()
    waiting: queue.Queue[State | None] = queue.Queue(2 * WORKERS)
    found: list[tuple[State, dict[str, Any]]] = []
    threads = [threading.Thread(target=_work, args=(waiting, found, place / str(number))) for number in range(WORKERS)]
    for thread in threads:
        thread.start()
    made, every = 0, KEEPER_EVERY_SHORT if stage.options.short else KEEPER_EVERY_LONG
    try:
        for state in states:
            if not stage.has_time and made >= LEAST_STATES:
                break
            waiting.put(state)
            made += 1
            if made % every == 0 and state.done >= 0 and keepers:
                stage.violated(start_keeper(state, place / "keeper", right))
                told["started by a keeper"] += 1
            while found:
                _judge(stage, *found.pop(), right, told, plain, folder)
    finally:
        for _ in threads:
            waiting.put(None)
        for thread in threads:
            thread.join()
        shutil.rmtree(place, ignore_errors=True)
    while found:
        _judge(stage, *found.pop(), right, told, plain, folder)
    return made


def _work(waiting: queue.Queue[State | None], found: list[tuple[State, dict[str, Any]]], place: Path) -> None:
    """A thread with a recoverer of its own: lays states out, asks, keeps what it says."""
    recoverer = Recoverer()
    tried = 0
    while (state := waiting.get()) is not None:
        answer = recoverer.ask(place, state.tree)
        if answer.get("repaired") and tried < MOST_PLAIN:
            tried += 1
            answer["plain"] = recoverer.ask(place, state.tree, plain=True)
        found.append((state, answer))
    recoverer.close()


def start_keeper(state: State, place: Path, right: list[Any]) -> list[str]:
    """A keeper is started on the state, with its home as it is; what is wrong with what it serves."""
    lay_out(state.tree, place)
    found: Any = None
    try:
        with KeeperProcess(place / "pond.duckdb") as keeper, Client.local(keeper.home.root, retry_for_s=KEEPER_S) as client:
            version = client.take_snapshot(only_changes=True)["version"]
            answer = client.query(LOOK, at_least=version, timeout_s=KEEPER_S)
            found = json.loads(json.dumps(answer.rows[0], default=str))
            client.execute("CREATE TABLE after_all (i INTEGER)", timeout_s=KEEPER_S)
    except (AssertionError, PondkeeperError) as error:
        return [f"state {state.number}, cut at {state.call}: the keeper does not serve it: {error}"]
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return [] if _is_allowed(state, found, right) else [f"state {state.number}: a keeper serves {found}"]


class Recoverer:
    """A process that starts from states, one after the other; a successor when it dies."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, place: Path, tree: Tree, *, plain: bool = False) -> dict[str, Any]:
        """Lay the tree out and start from it; what was found."""
        lay_out(tree, place)
        try:
            return self._ask({"root": str(place), "plain": plain})
        finally:
            shutil.rmtree(place)

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        if self._process is None:
            command = [sys.executable, "-m", "campaigns.recovering"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=program_environment()
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if line:
            return dict(json.loads(line))
        status = self._process.wait()
        self.close()
        return {"error": f"the process died with status {status}"}

    def close(self) -> None:
        if self._process is not None:
            with self._process:
                self._process.kill()
            self._process = None


def _judge(
    stage: Stage, state: State, answer: dict[str, Any], right: list[Any], told: Counter[str], plain: list[str], folder: Path
) -> None:
    wrong = judged(state, answer, right)
    told[_in_words(answer)] += 1
    alone = answer.get("plain")
    if alone and ("error" in alone or not _is_allowed(state, alone["found"], right)):
        plain.append(f"state {state.number}, cut at {state.call}: {alone.get('error') or 'acknowledged rows are missing'}")
    if not wrong:
        return
    kept = folder / f"state-{state.number}"
    if not kept.exists():
        lay_out(state.tree, kept)
    stage.line(state=state.number, cut_at=state.call, done=state.done, begun=state.begun, answer=answer, violations=wrong)
    stage.violated([f"state {state.number}, cut at {state.call}: {text}" for text in wrong])


def judged(state: State, answer: dict[str, Any], right: list[Any]) -> list[str]:
    """What must not be of what was found in a state."""
    if "error" in answer:
        return [f"it does not open: {answer['error']}"]
    wrong = []
    if not _is_allowed(state, answer["found"], right):
        wrong.append(f"after step {state.done} (begun {state.begun}) it holds {answer['found']}, not {right[max(state.done, 0)]}")
    if answer["damaged"]:
        wrong.append(f"blocks {answer['damaged'][:5]} are damaged after the start")
    snapshot = answer["snapshot"]
    if snapshot is not None and snapshot["damaged"]:
        wrong.append(f"the newest snapshot has damaged blocks: {snapshot['damaged'][:5]}")
    wrong += [f"the archive: {trouble}" for trouble in answer["archive"]["troubles"]]
    if state.archived and state.archived not in answer["archive"]["versions"]:
        wrong.append(f"the archive has {answer['archive']['versions']}, and not {state.archived}, which was acknowledged")
    if snapshot is not None and snapshot["found"] not in (NOTHING, *right[: state.begun + 1]):
        wrong.append(f"the newest snapshot holds what never was: {snapshot['found']}")
    return wrong


def _is_allowed(state: State, found: Any, right: list[Any]) -> bool:
    """What was acknowledged last, or what was under way and may have been committed."""
    allowed = [right[state.done] if state.done >= 0 else NOTHING]
    if state.begun > state.done:
        allowed.append(right[state.begun])
    return found in allowed


def _in_words(answer: dict[str, Any]) -> str:
    if "error" in answer:
        return "did not open"
    repaired = answer["repaired"]
    if not repaired:
        return "opened" if answer["existed"] else "made anew"
    return "repaired" if repaired["donor"] else "a WAL was cut"


def play_repair(stage: Stage) -> None:
    """A repair is cut too: the torn file, or the one that was put together, opens with the same content."""
    if (reason := why_no_tracer()) is not None:
        stage.line(skipped=f"no tracer: {reason}")
        return
    wanted = max(1, stage.options.of(LONG_STATES, SHORT_STATES) // REPAIR_SHARE)
    chance = stage.chance
    told: Counter[str] = Counter()
    made = record = 0
    while made < wanted and stage.has_time:
        record += 1
        folder = stage.room(f"record-{record}")
        right, calls, before = _recorded_repair(stage, folder, chance)
        states = _states(calls, folder / "root", before, min(STATES_PER_RECORD, wanted - made), chance)
        made += _try_all(stage, (changed(state, done=1, begun=1) for state in states), right, told, [], folder)
        if not stage.violations and not stage.options.keep:
            shutil.rmtree(folder)
    stage.line(summary=True, states=made, records=record, told=dict(told))
    stage.control("some of the states were still torn", [word for word in told if word == "repaired"])


def _recorded_repair(stage: Stage, folder: Path, chance: random.Random) -> tuple[list[Any], list[Call], Tree]:
    """What is in the snapshot and in the file, the calls of a repair, and what was there before it."""
    root, marks, log = folder / "root", folder / "marks", folder / "calls.strace"
    root.mkdir()
    right: list[Any] = json.loads(json.dumps(make_torn(root, chance), default=str))
    before = read_tree(root)
    done = subprocess.run(
        [*tracer(log), sys.executable, "-m", "campaigns.recovering"],
        input=json.dumps({"root": str(root)}) + "\n", env=program_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    if "error" in answer or not answer["repaired"]:
        raise RuntimeError(f"the repair that is recorded failed: {answer}")
    calls = list(read_trace(log, root, marks))
    log.unlink()
    shutil.rmtree(root)
    stage.say(f"recorded {len(calls)} calls of a repair")
    return right, calls, before


def make_torn(root: Path, chance: random.Random) -> list[Any]:
    """A database with a snapshot and a WAL whose metadata blocks a checkpoint has torn; what snapshot and file hold."""
    paths = DatabasePaths(root / "pond.duckdb", default_home(root))
    make_folder(paths.turn)
    with duckdb.connect(str(paths.file), config={"storage_compatibility_version": NEW_FILE_STORAGE_VERSION}) as connection:
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        for step in draw(chance, 5)[:7]:
            for statement in step.get("sql", ()):
                connection.execute(statement)
        connection.execute("CHECKPOINT")
        published = connection.execute(LOOK).fetchone()
    copier = Copier(paths.file, paths.snapshots, Cancelling())
    copier.publish(1, [], keep=3)
    copier.settle()
    copier.close()
    with duckdb.connect(str(paths.file)) as connection:
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        connection.execute("INSERT INTO a SELECT -range, 'in the WAL' FROM range(100)")
        right = connection.execute(LOOK).fetchone()
    with paths.file.open("r+b") as opened:
        use = read_block_use(opened.fileno(), headers := read_headers(opened.fileno()))
        assert use is not None
        for block in use.metadata:
            os.pwrite(opened.fileno(), chance.randbytes(4_096), block_offset(block, headers.active.block_size_bytes))
    return [published, right]
