"""Which staged rows break a constraint of their table, asked by queries, once the engine has refused to load them all.

It means what inserting the rows one by one would mean: of several that exclude each other the first stays. The engine's own
insert decides in the end; what is found here is only left out, with a reason, and the rest is tried again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa

from pondkeeper.engine.intake.passes import Pass
from pondkeeper.engine.intake.sources.columnar import ColumnarSource
from pondkeeper.engine.intake.sources.rows import PLACE
from pondkeeper.engine.intake.values import from_value
from pondkeeper.engine.render import sql
from pondkeeper.engine.render.types import described
from pondkeeper.errors import BodyTooLarge
from pondkeeper.files.durable import PRIVATE_FILE

if TYPE_CHECKING:
    from pondkeeper.engine.intake.loading import Load

MOST_BROKEN: Final = 1_000_000
_FETCH_ROWS: Final = 4096
_SCHEMA: Final = pa.schema([("place", pa.int64()), ("reason", pa.string()), ("culprit", pa.string())])
_ROW, _THERE = "r", "x"


@dataclass(frozen=True)
class _Rule:
    """A constraint: `parts` are SQL over the table's columns; `parent` is what they refer to, as (table, columns)."""

    kind: str
    text: str
    columns: tuple[str, ...]
    parts: tuple[str, ...]
    parent: tuple[str, tuple[str, ...]] | None = None

    @property
    def culprit(self) -> str | None:
        """The column that is at fault, where it can be only one."""
        return self.columns[0] if len(self.columns) == 1 else None


def write_broken(cursor: duckdb.DuckDBPyConnection, wanted: Load) -> int:
    """Write the places of rows that cannot be loaded, and why, to `wanted.broken`: how many faults were found.

    Nothing is written when none was found. Raises BodyTooLarge when there are too many to be remembered.
    """
    assert wanted.broken is not None
    found = _Search(cursor, wanted).run()
    if not found:
        return 0
    faults = [(place, reason, rule.culprit) for place, all_of_it in found.items() for rule, reason in all_of_it]
    table = pa.Table.from_arrays([pa.array(part, field.type) for part, field in zip(zip(*faults, strict=True), _SCHEMA, strict=True)], schema=_SCHEMA)
    path = Path(wanted.broken)
    path.touch(PRIVATE_FILE)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, _SCHEMA) as writer:
        writer.write_table(table)
    return len(faults)


def read_broken(paths: Iterable[str]) -> pa.Table:
    """What `write_broken` has written, of several loads."""
    tables = [_SCHEMA.empty_table()]
    for path in paths:
        with pa.OSFile(path, "rb") as file, pa.ipc.open_stream(file) as reader:
            tables.append(reader.read_all())
    return pa.concat_tables(tables)


class _Search:
    """One load, rule by rule; a pass over the rows for each."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, wanted: Load) -> None:
        assert wanted.shape is not None, "a table that is made from the rows has no constraints"
        self._cursor = cursor
        self._wanted = wanted
        self._shape = wanted.shape
        self._given = {target: name for name, target in wanted.columns}
        self._defaults = dict(cursor.execute(_DEFAULTS, [self._shape.schema, self._shape.table]).fetchall())
        self._found: dict[int, list[tuple[_Rule, str]]] = {}

    def run(self) -> dict[int, list[tuple[_Rule, str]]]:
        """The faults of each bad row, by place."""
        rules = list(_rules(self._cursor, self._shape.schema, self._shape.table))
        for rule in rules:
            if rule.kind == "CHECK":
                self._note(rule, f"breaks {rule.text}", self._unfit(rule))
            elif rule.kind == "FOREIGN KEY":
                self._note(rule, f"{rule.text}: there is no such row", self._orphans(rule))
        unique = [rule for rule in rules if rule.kind == "UNIQUE" and self._is_at_stake(rule)]
        if self._wanted.mode != "replace":
            for rule in unique:
                self._note(rule, f"{rule.text}: another row of the table has this value", self._doubles(rule))
        if unique:
            self._note_twins(unique)
        return self._found

    def _note(self, rule: _Rule, reason: str, query: str) -> None:
        for (place,) in self._answers(query, rule.columns):
            self._add(place, rule, reason)

    def _add(self, place: int, rule: _Rule, reason: str) -> None:
        self._found.setdefault(place, []).append((rule, reason))
        if len(self._found) > MOST_BROKEN:
            raise BodyTooLarge(
                f"More than {MOST_BROKEN:,} rows break constraints of the table.", remedy="Send it in smaller pieces.", max_rows=MOST_BROKEN
            )

    def _answers(self, query: str, columns: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        """The answer of a query over `all_rows`: place and columns of the table as they would be after the load."""
        source = ColumnarSource(Path(self._wanted.path), self._wanted.format, verify=False)
        names = [name for name, _ in self._wanted.columns]
        is_placed = PLACE in source.names
        attempt = Pass(self._cursor, source.columns([PLACE, *names]) if is_placed else source.read(names, lambda _: None))
        with attempt as view:
            rows = self._rows(view.name, view.types, columns)
            # Trap: 1.5 makes a join of a table with itself of some window functions, and a reader can be read only once.
            answer = attempt.execute(f"WITH all_rows AS MATERIALIZED {rows} {query}")
            while found := answer.fetchmany(_FETCH_ROWS):
                yield from found

    def _rows(self, view: str, types: dict[str, Any], columns: Iterable[str]) -> str:
        kinds = {column.name: described(self._cursor.sqltype(column.type)) for column in self._shape.columns}
        needed = dict.fromkeys([*columns, *self._keys])
        values = []
        for column in needed:
            if column in self._given:
                value = from_value(kinds[column], types[self._given[column]], f"v.{sql.name(self._given[column])}")
            else:
                value = self._value_of_absent(column)
            values.append(f"{value} AS {sql.name(column)}")
        return f"(SELECT v.{PLACE} AS {PLACE}, {', '.join(values)} FROM {view} v{self._matched(types, kinds)})"

    @property
    def _keys(self) -> tuple[str, ...]:
        return tuple(self._wanted.keys) if self._wanted.mode == "upsert" else ()

    def _value_of_absent(self, column: str) -> str:
        default = self._defaults.get(column) or "NULL"
        if not self._keys:
            return f"({default})"
        return f"CASE WHEN t.rowid IS NULL THEN ({default}) ELSE t.{sql.name(column)} END"

    def _matched(self, types: dict[str, Any], kinds: dict[str, Any]) -> str:
        """What an upsert would change: columns that did not come keep their values."""
        if not self._keys:
            return ""
        same = (
            f"t.{sql.name(key)} IS NOT DISTINCT FROM {from_value(kinds[key], types[self._given[key]], f'v.{sql.name(self._given[key])}')}"
            for key in self._keys
        )
        return f" LEFT JOIN {self._shape.reference} t ON {' AND '.join(same)}"

    # Queries

    def _unfit(self, rule: _Rule) -> str:
        return f"SELECT {PLACE} FROM all_rows WHERE NOT CAST({rule.parts[0]} AS BOOLEAN)"

    def _orphans(self, rule: _Rule) -> str:
        assert rule.parent is not None
        table, columns = rule.parent
        given = " AND ".join(f"{_ROW}.{part} IS NOT NULL" for part in rule.parts)
        same = " AND ".join(f"p.{sql.name(column)} = {_ROW}.{part}" for column, part in zip(columns, rule.parts, strict=True))
        is_emptied = self._wanted.mode == "replace" and table == self._shape.table
        parents = f"{sql.name(self._shape.schema)}.{sql.name(table)}"
        nobody = "true" if is_emptied else f"NOT EXISTS (SELECT 1 FROM {parents} p WHERE {same})"
        return f"SELECT {_ROW}.{PLACE} FROM all_rows {_ROW} WHERE {given} AND {nobody}"

    def _doubles(self, rule: _Rule) -> str:
        mine = ", ".join(f"{part} AS u{at}" for at, part in enumerate(rule.parts))
        keys = [(f"k{at}", sql.name(key)) for at, key in enumerate(self._keys)]
        kept = "".join(f", {name} AS {alias}" for alias, name in keys)
        same = " AND ".join(f"{_THERE}.u{at} = {_ROW}.u{at}" for at in range(len(rule.parts)))
        itself = " AND ".join(f"{_THERE}.{alias} IS NOT DISTINCT FROM {_ROW}.{alias}" for alias, _ in keys)
        another = f" AND NOT ({itself})" if keys else ""
        return (
            f"SELECT {_ROW}.{PLACE} FROM (SELECT {PLACE}, {mine}{kept} FROM all_rows) {_ROW} WHERE EXISTS"
            f" (SELECT 1 FROM (SELECT {mine}{kept} FROM {self._shape.reference}) {_THERE} WHERE {same}{another})"
        )

    # Rows that exclude each other

    def _is_at_stake(self, rule: _Rule) -> bool:
        """Whether rows can break it: by the key of an upsert none does, and what a default makes anew is not known yet."""
        if self._keys and {column.lower() for column in self._keys} == {column.lower() for column in rule.columns}:
            return False
        absent = [self._defaults.get(column) or "" for column in rule.columns if column not in self._given]
        return bool(self._keys) or not any("(" in default for default in absent)

    def _note_twins(self, rules: list[_Rule]) -> None:
        """In the order of their places: a row is bad if one before it that stays has its value."""
        taken: set[tuple[int, int]] = set()
        for place, groups in self._answers(_twins(rules), {column: None for rule in rules for column in rule.columns}):
            mine = {(at, first) for at, first in enumerate(groups) if first is not None}
            if place in self._found:
                continue
            for at, _ in sorted(mine & taken):
                self._add(place, rules[at], f"{rules[at].text}: a row before it in the body has this value")
            if not mine & taken:
                taken |= mine


def _twins(rules: list[_Rule]) -> str:
    """Place and, by rule, the first place with the same value where there are several; NULLs exclude nothing."""
    parts = {(at, n): part for at, rule in enumerate(rules) for n, part in enumerate(rule.parts)}
    values = ", ".join(f"{part} AS u{at}_{n}" for (at, n), part in parts.items())
    firsts = []
    for at, rule in enumerate(rules):
        mine = [f"u{at}_{n}" for n in range(len(rule.parts))]
        by = f"OVER (PARTITION BY {', '.join(mine)})"
        is_whole = " AND ".join(f"{name} IS NOT NULL" for name in mine)
        firsts.append(f"CASE WHEN {is_whole} AND count(*) {by} > 1 THEN min({PLACE}) {by} END AS f{at}")
    names = [f"f{at}" for at in range(len(rules))]
    inner = f"SELECT {PLACE}, {', '.join(firsts)} FROM (SELECT {PLACE}, {values} FROM all_rows)"
    some = " OR ".join(f"{name} IS NOT NULL" for name in names)
    return f"SELECT {PLACE}, [{', '.join(names)}] FROM ({inner}) WHERE {some} ORDER BY {PLACE}"


def _rules(cursor: duckdb.DuckDBPyConnection, schema: str, table: str) -> Iterator[_Rule]:
    for kind, text, expression, columns, parent, of_parent in cursor.execute(_CONSTRAINTS, [schema, table]).fetchall():
        names = tuple(columns)
        if kind == "CHECK":
            yield _Rule(kind, text, names, (expression,))
        elif kind == "FOREIGN KEY":
            mine = tuple(map(sql.name, names))
            label = f"FOREIGN KEY ({', '.join(mine)}) REFERENCES {sql.name(parent)} ({', '.join(map(sql.name, of_parent))})"
            yield _Rule(kind, label, names, mine, (parent, tuple(of_parent)))
        else:
            yield _Rule("UNIQUE", text, names, tuple(map(sql.name, names)))
    known = [name for (name,) in cursor.execute(_COLUMNS, [schema, table]).fetchall()]
    for index, parts in cursor.execute(_INDEXES, [schema, table]).fetchall():
        # Why all columns for an expression: which of them it reads only the engine's binder knows.
        plain = tuple(name for part in parts for name in known if part in (name, sql.name(name)))
        columns = plain if len(plain) == len(parts) else tuple(known)
        yield _Rule("UNIQUE", f"UNIQUE INDEX {sql.name(index)}", columns, tuple(parts))


_CONSTRAINTS: Final = """SELECT constraint_type, constraint_text, expression, constraint_column_names, referenced_table, referenced_column_names
    FROM system.main.duckdb_constraints() WHERE database_name = current_database() AND schema_name = ? AND table_name = ?
    AND constraint_type IN ('CHECK', 'FOREIGN KEY', 'PRIMARY KEY', 'UNIQUE') ORDER BY constraint_index"""
_INDEXES: Final = """SELECT index_name, CAST(expressions AS VARCHAR[]) FROM system.main.duckdb_indexes()
    WHERE database_name = current_database() AND schema_name = ? AND table_name = ? AND is_unique ORDER BY index_name"""
_COLUMNS: Final = """SELECT column_name FROM system.main.duckdb_columns()
    WHERE database_name = current_database() AND schema_name = ? AND table_name = ? ORDER BY column_index"""
_DEFAULTS: Final = """SELECT column_name, column_default FROM system.main.duckdb_columns()
    WHERE database_name = current_database() AND schema_name = ? AND table_name = ?"""
