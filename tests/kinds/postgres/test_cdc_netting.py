"""What a log of changes leaves, in the steps of a load: any log, cut anywhere, spilled or not, against a table kept by hand."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from pondkeeper.engine.changes import Netting
from pondkeeper.engine.loads.carrying import Carrier
from pondkeeper.engine.loads.plan import made
from pondkeeper.kinds.postgres.cdc.applying import Applier, Target
from pondkeeper.kinds.postgres.cdc.gathering import MOST_MOVED, Gatherer, Shape
from pondkeeper.kinds.postgres.cdc.messages import (
    UNCHANGED,
    Begin,
    Commit,
    Delete,
    Insert,
    Message,
    Relation,
    RelationColumn,
    Truncate,
    Update,
)
from pondkeeper.kinds.postgres.describing import Kind, SourceColumn
from pondkeeper.kinds.postgres.types import mapped

COLUMNS = ("id", "part", "small", "large", "larger")
PLAIN = 5  # more bytes of rows than this in memory are spilled: everything is, in the rounds that ask for it
Text = str | None


class Source:
    """A table at a source, and what its log says of what is done to it."""

    def __init__(self, chance: random.Random, *, identity: str) -> None:
        self.rows: list[tuple[Text, ...]] = []
        self._chance = chance
        self._identity = identity
        self._position = 100
        self._next = 0

    @property
    def is_whole(self) -> bool:
        return self._identity == "f"

    def relation(self) -> Relation:
        columns = tuple(RelationColumn(name, 25, -1, self.is_whole or name in {"id", "part"}) for name in COLUMNS)
        return Relation(7, "public", "t", self._identity, columns)

    def transaction(self, changes: int) -> Iterator[Message]:
        self._position += 10
        yield Begin(self._position, float(self._position))
        for _ in range(changes):
            yield from self._change()
        yield Commit(self._position + 5, float(self._position))

    def _change(self) -> Iterator[Message]:
        kind = self._chance.random()
        if kind < 0.01:
            self.rows.clear()
            yield Truncate((7,))
        elif kind < 0.35 or not self.rows:
            row = self._new_row()
            self.rows.append(row)
            yield Insert(7, row)
        elif kind < 0.55:
            row = self.rows.pop(self._chance.randrange(len(self.rows)))
            yield Delete(7, self._old(row), self.is_whole)
        else:
            yield self._update()

    def _new_row(self) -> tuple[Text, ...]:
        if self.is_whole:  # twins are meant to happen
            return (self._chance.choice(["1", "2", None]), "a", None, None, self._value(2))
        self._next += 1
        return (str(self._next % 9 if self._is_free(str(self._next % 9)) else self._next + 10), "a", *(self._value() for _ in range(3)))

    def _is_free(self, key: str) -> bool:
        return all(row[0] != key for row in self.rows)

    def _update(self) -> Update:
        at = self._chance.randrange(len(self.rows))
        before = self.rows[at]
        key = before[0]
        if not self.is_whole and self._chance.random() < 0.2:
            self._next += 1
            key = str(self._next + 1000)
        kept = [place for place in (3, 4) if self._chance.random() < 0.5]
        after = [key, before[1], *(self._value(2) for _ in range(3))]
        for place in kept:
            after[place] = before[place]
        sent = [UNCHANGED if place in kept and before[place] is not None else value for place, value in enumerate(after)]
        self.rows[at] = tuple(after)
        old = self._old(before) if self.is_whole or key != before[0] else None
        return Update(7, old, self.is_whole, tuple(sent))

    def _old(self, row: tuple[Text, ...]) -> tuple[Text, ...]:
        return row if self.is_whole else (row[0], row[1], None, None, None)

    def _value(self, most: int = 50) -> Text:
        return self._chance.choice([None, str(self._chance.randrange(most))])


def shape(identity: str) -> Shape:
    return Shape("public.t", COLUMNS, () if identity == "f" else (0, 1))


def target() -> Target:
    kinds = {"small": Kind("int4", "base", -1, is_builtin=True)}
    text = Kind("text", "base", -1, is_builtin=True)
    columns = [SourceColumn(name, 1, 25, -1, "", kinds.get(name, text), is_domain=False) for name in COLUMNS]
    return Target("main.t", {column.name: mapped(column) for column in columns}, "allow")


@pytest.fixture
def warehouse() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (id VARCHAR, part VARCHAR, small INTEGER, large VARCHAR, larger VARCHAR)")
        yield connection


def load(warehouse: duckdb.DuckDBPyConnection, applier: Applier, gatherer: Gatherer) -> None:
    batch = gatherer.hand_over()
    steps = applier.steps(batch)

    def execute(sql: str, parameters: object) -> int:
        [(count,)] = warehouse.execute(sql, parameters).fetchall()
        return int(count)

    warehouse.begin()
    Carrier(warehouse, made("sync", f"to/{batch.position}", steps), execute).run()
    warehouse.commit()


@pytest.mark.parametrize("identity", ["d", "f"], ids=["keys", "whole rows"])
@pytest.mark.parametrize("memory_bytes", [PLAIN, 1_000_000], ids=["spilled", "in memory"])
def test_any_log_leaves_the_rows_that_the_source_has(
    tmp_path: Path, warehouse: duckdb.DuckDBPyConnection, identity: str, memory_bytes: int
) -> None:
    source = Source(random.Random(f"{identity}{memory_bytes}"), identity=identity)
    given_up: list[str] = []
    with Netting(tmp_path, memory_bytes=200_000_000, threads=1) as netting:
        applier = Applier(tmp_path, netting, lambda table: target())
        gatherer = Gatherer(
            lambda relation: shape(identity) if not given_up else None, {}, applier.spill,
            lambda table, why: given_up.append(table), memory_bytes=memory_bytes,
        )  # fmt: skip
        gatherer.take(source.relation())
        for _ in range(8):
            for _ in range(source._chance.randrange(1, 4)):
                for message in source.transaction(source._chance.randrange(12)):
                    gatherer.take(message)
            load(warehouse, applier, gatherer)
            found = warehouse.execute("SELECT id, part, small::VARCHAR, large, larger FROM t").fetchall()
            assert Counter(found) == Counter(source.rows)
    assert not given_up


def test_what_the_copy_has_already_is_not_counted_again(tmp_path: Path) -> None:
    source = Source(random.Random(1), identity="d")
    gatherer = Gatherer(lambda relation: shape("d"), {"public.t": 125}, _no_spill, _no_giving_up, memory_bytes=1_000_000)
    gatherer.take(source.relation())
    for message in (*source.transaction(3), *source.transaction(3)):  # they commit at 110 and 120
        gatherer.take(message)
    assert gatherer.waiting.changes == 0
    for message in source.transaction(3):
        gatherer.take(message)
    assert gatherer.waiting.changes == 3
    assert gatherer.waiting.position == 135


def test_a_transaction_that_is_not_whole_is_not_handed_over() -> None:
    source = Source(random.Random(2), identity="d")
    gatherer = Gatherer(lambda relation: shape("d"), {}, _no_spill, _no_giving_up, memory_bytes=1_000_000)
    gatherer.take(source.relation())
    *most, commit = source.transaction(5)
    for message in most:
        gatherer.take(message)
    assert gatherer.in_transaction
    assert gatherer.hand_over().changes == 0
    gatherer.take(commit)
    assert gatherer.hand_over().changes == 5


def test_a_table_whose_rows_all_get_other_keys_is_given_up_for_a_copy() -> None:
    told: list[str] = []
    gatherer = Gatherer(lambda relation: shape("d"), {}, _no_spill, lambda table, why: told.append(table), memory_bytes=1_000_000)
    gatherer.take(Source(random.Random(3), identity="d").relation())
    gatherer.take(Begin(1, 1.0))
    for number in range(MOST_MOVED + 5):
        gatherer.take(Update(7, (str(number), "a", None, None, None), False, (f"new {number}", "a", "1", UNCHANGED, None)))
    gatherer.take(Commit(2, 1.0))
    assert told == ["public.t"]
    assert not gatherer.waiting.segments


def _no_spill(shape: Shape, rows: object) -> Path:
    raise AssertionError("nothing here is that large")


def _no_giving_up(table: str, why: str) -> None:
    raise AssertionError(why)
