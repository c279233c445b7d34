"""Random points in time, restored while a mixed load goes on: each must be what the writer had, to the last row.

One client writes: single rows, bulk commits, updates, deletes, tables made and dropped, columns added and dropped. After each
commit the model says what is in the database, and the answer says which version has it. Points are versions of the archive,
or times between the first and the last; each is restored as a user would, and compared with the model.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import duckdb

from campaigns.running import Stage, percentile
from pondkeeper.archive import history, restorer
from pondkeeper.archive.manifest import ArchivedVersion
from pondkeeper.archive.store.local import LocalStore
from pondkeeper.client import Client
from pondkeeper.local.copying import clone
from pondkeeper.snapshots.holding import Wanted
from tests.support.keeper import KeeperProcess, keepers, wait_until

LONG_ROUNDS, SHORT_ROUNDS = 500, 5
INTERVAL_S = "0.1"
MAX_ROWS, BULK_ROWS, MAX_TABLES = 120_000, 15_000, 5
FIRST_VERSIONS = 10
CLONED_EVERY = 5
Digest = tuple[tuple[Any, ...], ...]
_SUMS = (
    "count(*), coalesce(sum(id), 0)::HUGEINT, coalesce(sum(v), 0)::HUGEINT, coalesce(sum(id * v % 1000003), 0)::HUGEINT, "
    "count(*) FILTER (s IS DISTINCT FROM md5(id || '/' || v))"
)


@dataclass
class Table:
    """What the model knows of a table."""

    has_note: bool = False
    rows: dict[int, int] = field(default_factory=dict)

    def digest(self, name: str) -> tuple[Any, ...]:
        columns = ("id", "v", "s", *(("note",) if self.has_note else ()))
        mixed = sum(key * value % 1000003 for key, value in self.rows.items())
        return (name, columns, len(self.rows), sum(self.rows), sum(self.rows.values()), mixed, 0)


class Model:
    """The tables, and the statements that change them."""

    def __init__(self, chance: random.Random) -> None:
        self.tables: dict[str, Table] = {}
        self._chance = chance
        self._made = 0
        self._next_id = 1
        self._digests: dict[str, tuple[Any, ...]] = {}

    def digest(self) -> Digest:
        """What a look must find; only what has changed is summed up again."""
        for name, table in self.tables.items():
            self._digests.setdefault(name, table.digest(name))
        return tuple(self._digests[name] for name in sorted(self.tables))

    def step(self) -> list[str]:
        """The statements of the next commit; the model has them done already."""
        size = sum(len(table.rows) for table in self.tables.values())
        if not self.tables:
            return [self._create()]
        kinds = ["insert"] * 8 + ["update"] * 4 + ["delete"] * 3 + ["bulk"] * 2 + ["list", "create", "drop", "note"]
        kind = "delete" if size > MAX_ROWS else self._chance.choice(kinds)
        if kind == "list":
            return [self._insert(3), self._insert(3), self._update()]
        return [getattr(self, "_" + kind)()]

    def _any(self) -> str:
        name = self._chance.choice(sorted(self.tables))
        self._digests.pop(name, None)
        return name

    def _create(self) -> str:
        if len(self.tables) >= MAX_TABLES:
            return self._insert(1)
        self._made += 1
        name = f"t{self._made}"
        self.tables[name] = Table()
        key = " PRIMARY KEY" if self._made % 2 else ""
        return f"CREATE TABLE {name} (id BIGINT{key}, v BIGINT, s VARCHAR)"

    def _drop(self) -> str:
        if len(self.tables) < 3:
            return self._create()
        name = self._any()
        del self.tables[name]
        return f"DROP TABLE {name}"

    def _note(self) -> str:
        name = self._any()
        table = self.tables[name]
        table.has_note = not table.has_note
        return f"ALTER TABLE {name} {'ADD COLUMN note INTEGER' if table.has_note else 'DROP COLUMN note'}"

    def _insert(self, count: int | None = None) -> str:
        count = count or self._chance.randint(1, 5)
        return self._add(count)

    def _bulk(self) -> str:
        return self._add(self._chance.randint(BULK_ROWS // 5, BULK_ROWS))

    def _add(self, count: int) -> str:
        name, factor = self._any(), self._chance.randint(2, 999)
        first, self._next_id = self._next_id, self._next_id + count
        self.tables[name].rows |= {key: key * factor % 1009 for key in range(first, first + count)}
        rows = f"SELECT range AS id, range * {factor} % 1009 AS v FROM range({first}, {first + count})"
        return f"INSERT INTO {name} (id, v, s) SELECT id, v, md5(id || '/' || v) FROM ({rows})"

    def _update(self) -> str:
        name, by, modulo = self._any(), self._chance.randint(1, 9), self._chance.choice((2, 7, 50, 900))
        rest = self._chance.randrange(modulo)
        rows = self.tables[name].rows
        rows.update({key: value + by for key, value in rows.items() if key % modulo == rest})
        return f"UPDATE {name} SET v = v + {by}, s = md5(id || '/' || (v + {by})) WHERE id % {modulo} = {rest}"

    def _delete(self) -> str:
        name, modulo = self._any(), self._chance.choice((2, 3, 20, 400))
        rest = self._chance.randrange(modulo)
        table = self.tables[name]
        table.rows = {key: value for key, value in table.rows.items() if key % modulo != rest}
        return f"DELETE FROM {name} WHERE id % {modulo} = {rest}"


class Writer:
    """Writes until it is stopped; `commits` are the versions and what was in the database after each."""

    def __init__(self, keeper: KeeperProcess, chance: random.Random, pauses_s: Sequence[float] = (0.0, 0.0, 0.02, 0.1)) -> None:
        self.commits: list[tuple[int, Digest]] = [(0, ())]
        self.failure: str | None = None
        self._home = keeper.home.root
        self._model = Model(chance)
        self._pauses, self._pauses_s = random.Random(chance.random()), pauses_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer")

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            with Client.local(self._home) as client:
                while not self._stop.is_set():
                    statements = self._model.step()
                    version = client.execute(statements if len(statements) > 1 else statements[0]).version
                    self.commits.append((version, self._model.digest()))
                    self._stop.wait(self._pauses.choice(self._pauses_s))
        except Exception as error:  # noqa: BLE001  Why: whatever ended it, the campaign must say so.
            self.failure = f"the writer ended: {error!r}"

    def allowed(self, version: int) -> set[Digest]:
        """What that version may be: a commit is answered with a version that certainly has it, and may be in the one before."""
        surely = max(number for number, (answered, _) in enumerate(self.commits) if answered <= version)
        perhaps = [digest for answered, digest in self.commits[surely + 1 :] if answered == version + 1]
        return {self.commits[surely][1], *perhaps}


def play(stage: Stage) -> None:
    """Restore points while the load goes on; judge them when it is over, since the last commits are known only then."""
    room = stage.room("points")
    keeper = KeeperProcess(
        room / "pond.duckdb", "--archive", str(room / "archive"), environment={"PONDKEEPER_ARCHIVE_INTERVAL_S": INTERVAL_S}
    )
    found: list[tuple[str, int, Digest]] = []
    changed: tuple[int, Digest] | None = None
    took, sources, versions = [], Counter[str](), set[int]()
    chance = random.Random(stage.chance.random())
    with keepers(keeper):
        keeper.start()
        store = LocalStore(room / "archive")
        with Writer(keeper, stage.chance) as writer:
            wait_until(lambda: len(_archived(store)) >= FIRST_VERSIONS or writer.failure, timeout_s=120, what="versions")
            for number in range(1, stage.options.of(LONG_ROUNDS, SHORT_ROUNDS) + 1):
                if not stage.has_time or writer.failure:
                    break
                point, expected = _draw(chance, number, _archived(store))
                file = room / "then.duckdb"
                began = time.monotonic()
                made = _restored(keeper, point, file, as_a_user=number % CLONED_EVERY == 1)
                took.append(time.monotonic() - began)
                sources[made["source"]] += 1
                versions.add(made["version"])
                what = f"point {number}: {point}"
                if made["version"] != expected:
                    stage.violated([f"{what}: version {made['version']} instead of {expected}"])
                digest = look(file)
                found.append((what, made["version"], digest))
                stage.line(round=number, version=made["version"], rows=sum(table[2] for table in digest), source=made["source"])
                if changed is None and any(table[2] for table in digest):
                    changed = made["version"], _changed(file)
                file.unlink()
            client = keeper.local_client()
            wait_until(lambda: client.status()["version"] or writer.failure, what="a version")
        stage.violated([writer.failure] if writer.failure else [])
        stage.violated([f"{what}: version {version} is not what the writer had" for what, version, digest in found if digest not in writer.allowed(version)])
        is_seen = changed is not None and changed[1] not in writer.allowed(changed[0])
        stage.control("a row that was changed", ["it was seen"] if is_seen else [])
        others = [version for _, version, digest in found if digest not in writer.allowed(found[0][1])]
        stage.control("another version", [f"version {version}" for version in others])
    stage.line(
        summary=True, points=len(found), versions=len(versions), commits=len(writer.commits) - 1, sources=dict(sources),
        p50_s=percentile(took, 0.5), p99_s=percentile(took, 0.99),
    )  # fmt: skip


def _restored(keeper: KeeperProcess, point: Wanted, file: Path, *, as_a_user: bool) -> dict[str, Any]:
    """The file of a point: as the command makes it, by two fenced children; or by the restorer's own code in this process,
    which takes a fifth of the time."""
    if as_a_user:
        return clone(keeper.database, point, file)
    question = {
        "snapshots": str(keeper.database.snapshots), "file_name": keeper.target.name, "archive": str(keeper.target.parent / "archive"),
        "key_file": "", "database": "pond", "version": point.version, "at": point.at.isoformat() if point.at else None, "file": str(file),
    }  # fmt: skip
    return restorer.answer(question, lambda text: None)


def _archived(store: LocalStore) -> list[ArchivedVersion]:
    return history.versions(store, "pond")


def _draw(chance: random.Random, number: int, known: list[ArchivedVersion]) -> tuple[Wanted, int]:
    """A point, and the version that it must be: in turn a version, and a time."""
    if number % 2:
        version = chance.choice(known).version
        return Wanted(version=version), version
    first, last = known[0].created_at, known[-1].created_at
    at = first + timedelta(seconds=chance.random() * (last - first).total_seconds())
    return Wanted(at=at.astimezone(UTC)), max(each.version for each in known if each.created_at <= at)


def look(file: Path) -> Digest:
    """What is in a restored file, read by a plain DuckDB."""
    with duckdb.connect(str(file), read_only=True) as database:
        names = database.execute(
            "SELECT table_name, list(column_name ORDER BY column_index) FROM duckdb_columns() WHERE schema_name = 'main' "
            "AND NOT internal AND table_name LIKE 't%' GROUP BY ALL ORDER BY 1"
        ).fetchall()
        found = []
        for name, columns in names:
            [sums] = database.execute(f"SELECT {_SUMS} FROM {name}").fetchall()
            found.append((name, tuple(columns), *sums))
    return tuple(sorted(found))


def _changed(file: Path) -> Digest:
    """The look at a file in which one value of one row was changed."""
    with duckdb.connect(str(file)) as database:
        names = database.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main' ORDER BY estimated_size DESC").fetchall()
        assert names, "whoever asks has seen rows"
        database.execute(f"UPDATE {names[0][0]} SET v = v + 1 WHERE id = (SELECT min(id) FROM {names[0][0]})")
    return look(file)


