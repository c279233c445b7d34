"""Damaged database files: made whole or refused with a clear state, never served with wrong rows.

Many copies of one good database with a WAL are damaged, each in a way of its own, and served by one keeper: at first without
any snapshot, then with the last good one. A sound copy among them must be served whatever is wrong with the others.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from campaigns.running import Stage
from pondkeeper.client import Client
from pondkeeper.errors import PondkeeperError
from tests.support.keeper import KeeperProcess, keepers, pondkeeper, wait_until

LONG_ROUNDS, SHORT_ROUNDS = 8, 1  # of FILES files each
FILES = 9
HEADER_BYTES, HEADERS_BYTES, PAGE_BYTES = 4_096, 12_288, 4_096
KINDS = ("bit", "page of zeros", "page of noise", "torn metadata", "header", "both headers", "cut short", "cut in half")
JUDGED_WITHIN_S = 120.0
SOUND = "sound"
CONTENT = "SELECT (SELECT count(*) FROM a), (SELECT bit_xor(hash(i, s)) FROM a)::VARCHAR, (SELECT sum(i * j) FROM b)::BIGINT"


@dataclass(frozen=True)
class Damage:
    """What is done to one file: `at` says where, as a share of the file."""

    kind: str
    at: float

    def do(self, file: Path, chance: random.Random) -> str:
        """Damage the file; where, in words."""
        size_bytes = file.stat().st_size
        if self.kind.startswith("cut"):
            length = HEADERS_BYTES + 1_000 if self.kind == "cut short" else size_bytes // 2
            os.truncate(file, length)
            return f"{length} of {size_bytes} bytes are left"
        return self._overwrite(file, size_bytes, chance)

    def _overwrite(self, file: Path, size_bytes: int, chance: random.Random) -> str:
        places = {"header": [HEADER_BYTES + 20], "both headers": [HEADER_BYTES + 20, 2 * HEADER_BYTES + 20]}
        places |= {"torn metadata": [HEADERS_BYTES + PAGE_BYTES * number for number in range(1, 9)]}
        offsets = places.get(self.kind) or [HEADERS_BYTES + int(self.at * (size_bytes - HEADERS_BYTES - PAGE_BYTES))]
        length = PAGE_BYTES if "page" in self.kind or self.kind == "torn metadata" else 1
        with file.open("r+b") as opened:
            for offset in offsets:
                opened.seek(offset)
                old = opened.read(length)
                opened.seek(offset)
                opened.write(self._new(old, chance))
        return f"{length} bytes at {', '.join(map(str, offsets[:2]))}"

    def _new(self, old: bytes, chance: random.Random) -> bytes:
        if self.kind in ("page of zeros", "torn metadata"):
            return bytes(len(old))
        if self.kind == "page of noise":
            return chance.randbytes(len(old))
        return bytes([old[0] ^ 1 << chance.randrange(8), *old[1:]])


def draw(chance: random.Random) -> list[Damage]:
    """One of each kind, and more of those that have a place."""
    kinds = [*KINDS, *chance.choices(("bit", "page of zeros", "page of noise"), k=FILES - len(KINDS))]
    return [Damage(kind, chance.random()) for kind in kinds]


def play(stage: Stage) -> None:
    """Each round with files of its own."""
    chance = stage.chance
    told: Counter[str] = Counter()
    for number in range(1, stage.options.of(LONG_ROUNDS, SHORT_ROUNDS) + 1):
        if not stage.has_time:
            break
        for has_snapshots in (False, True):
            folder = stage.room(f"round-{number}-{'with' if has_snapshots else 'without'}")
            _Ponds(stage, folder, draw(chance), chance, has_snapshots=has_snapshots).play(number, told)
            if not stage.violations and not stage.options.keep:
                shutil.rmtree(folder)
    stage.line(summary=True, told=dict(told))
    stage.control("some damage was refused", [text for text in told if text.startswith("refused")])


class _Ponds:
    """A folder of copies, and what each must answer."""

    def __init__(
        self, stage: Stage, folder: Path, damages: list[Damage], chance: random.Random, *, has_snapshots: bool
    ) -> None:
        self._stage = stage
        self._chance = chance
        self._folder = folder / "ponds"
        self._good = folder / "good.duckdb"
        self._folder.mkdir()
        self._damages = {f"pond{number}": damage for number, damage in enumerate(damages)}
        self._has_snapshots = has_snapshots
        self._right = _make_good(self._good)
        for name in [SOUND, *self._damages]:
            self._put_good(name)

    def _put_good(self, name: str) -> None:
        for suffix in ("", ".wal"):
            fresh = self._folder / f".{name}.fresh{suffix}"
            shutil.copyfile(f"{self._good}{suffix}", fresh)
            fresh.replace(self._folder / f"{name}.duckdb{suffix}")

    def play(self, number: int, told: Counter[str]) -> None:
        """Damage the files, where snapshots are wanted after a keeper has published the good ones, and ask."""
        with keepers(KeeperProcess(self._folder)) as (keeper,):
            if self._has_snapshots:
                self._settle(keeper.start())
                keeper.stop()
            where = {name: damage.do(self._folder / f"{name}.duckdb", self._chance) for name, damage in self._damages.items()}
            self._settle(keeper.launch())
            with Client.local(keeper.home.root, retry_for_s=0.0) as client:
                for name, damage in self._damages.items():
                    said = self._ask(client, name)
                    told[f"{said['read']} / write: {said['write']}"] += 1
                    about = {"round": number, "snapshots": self._has_snapshots, "damage": damage.kind, "where": where[name]}
                    self._stage.line(**about, **said)
                    self._stage.violated([f"{damage.kind}, {where[name]}: {text}" for text in said["violations"]])
                self._stage.violated(self._ask(client, SOUND)["violations"])
                self._stage.violated(self._mend(client))

    def _settle(self, keeper: KeeperProcess) -> None:
        """Wait until there is a verdict on every file."""
        with Client.local(keeper.home.root, retry_for_s=JUDGED_WITHIN_S) as client:
            wait_until(lambda: self._all_judged(client), timeout_s=JUDGED_WITHIN_S, what="a verdict on every file")

    def _all_judged(self, client: Client) -> bool:
        try:
            states = client.databases()
        except PondkeeperError:
            return False
        return len(states) == len(self._damages) + 1 and all(_is_judged(state) for state in states)

    def _ask(self, client: Client, name: str) -> dict[str, Any]:
        state = client.status(name)
        problem = state["problem"]["code"] if state["problem"] else None
        read, content = _answer(lambda: client.query(CONTENT, database=name, timeout_s=10).rows[0])
        write, _ = _answer(lambda: client.execute("CREATE TABLE mine (x INTEGER)", database=name, timeout_s=10))
        wrong = []
        if read == "answered" and content != self._right:
            wrong.append(f"WRONG ROWS were served: {content} instead of {self._right}")
        if read == "answered" and problem and not self._has_snapshots:
            wrong.append(f"served beside the problem {problem}")
        if read != "answered" and problem is None:
            wrong.append(f"a read was answered with {read}, and the status knows no problem")
        if self._has_snapshots and read != "answered":
            wrong.append(f"the last good snapshot was not served: {read}")
        if problem and write == "answered":
            wrong.append(f"a write was taken into a file of which it is known: {problem}")
        is_found = problem != "database_unreadable" or _doctor_finds(self._folder / f"{name}.duckdb")
        if not is_found and not client.status(name)["repair"]:  # it may have been made whole meanwhile
            wrong.append("the doctor finds nothing")
        if name == SOUND and (read, write, problem) != ("answered", "answered", None):
            wrong.append(f"the sound database beside them: {read}, {write}, {problem}")
        verdict = f"refused: {read}" if read != "answered" else "answered rightly"
        return {"database": name, "problem": problem, "read": verdict, "write": write, "violations": wrong}

    def _mend(self, client: Client) -> list[str]:
        """Good files are put in the place of the damaged ones: served and written again, without a restart."""
        broken = [name for name in self._damages if client.status(name)["problem"]]
        for name in broken:
            self._put_good(name)
        wrong = []
        for name in broken:
            try:
                wait_until(lambda: client.status(name)["problem"] is None, timeout_s=JUDGED_WITHIN_S, what=name)  # noqa: B023  called before the loop goes on
            except AssertionError:
                wrong.append(f"{name} was mended, and its status still says {client.status(name)['problem']}")
                continue
            write, _ = _answer(lambda: client.execute("CREATE TABLE after (x INTEGER)", database=name, timeout_s=20))  # noqa: B023  called before the loop goes on
            if write != "answered":
                wrong.append(f"{name} was mended, and a write is told {write}")
        return wrong


def _make_good(file: Path) -> list[Any]:
    """A database with some history, rows in file and WAL; what CONTENT answers."""
    with duckdb.connect(str(file), config={"storage_compatibility_version": "v1.5.0"}) as database:
        database.execute("CREATE TABLE a AS SELECT range AS i, md5(range::VARCHAR) AS s FROM range(150000)")
        database.execute("CREATE TABLE b (i INTEGER PRIMARY KEY, j INTEGER)")
        database.execute("INSERT INTO b SELECT range, range * 3 FROM range(20000)")
        database.execute("CHECKPOINT")
        database.execute("UPDATE a SET s = upper(s) WHERE i % 10 = 0")
        database.execute("DELETE FROM b WHERE i % 7 = 0")
        database.execute("CHECKPOINT")
        database.execute("PRAGMA disable_checkpoint_on_shutdown")
        database.execute("INSERT INTO b SELECT range, 1 FROM range(100000, 101000)")
        row = database.execute(CONTENT).fetchone()
    assert row is not None
    assert file.with_name(file.name + ".wal").exists()
    return json.loads(json.dumps(list(row)))  # type: ignore[no-any-return]


def _is_judged(state: dict[str, Any]) -> bool:
    """Whether the file was looked at since the start: a publish, or a problem. The sound one may be as it was."""
    is_published = state["state"] == "ready" and (state["counters"]["publishes"] > 0 or state["name"] == SOUND)
    return bool(state["problem"]) or is_published


def _answer(ask: Any) -> tuple[str, Any]:
    try:
        return "answered", ask()
    except PondkeeperError as error:
        return error.code, None


def _doctor_finds(file: Path) -> bool:
    return pondkeeper("check", str(file)).returncode == 1
