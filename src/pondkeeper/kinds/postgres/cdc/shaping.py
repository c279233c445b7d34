"""What a change of a table's columns means: nothing, new columns, or that the table has to be copied again.

The log has a table's columns as they were when its changes were made; what became of rows that were there before is not in
it. So a new column is only taken over when nothing can be in it in those rows; whatever else happens, the table is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from pondkeeper.errors import SchemaDrifted, SourceRefused
from pondkeeper.kinds.postgres.cdc.catalog import LoggedTable
from pondkeeper.kinds.postgres.cdc.gathering import Shape
from pondkeeper.kinds.postgres.cdc.messages import Relation
from pondkeeper.kinds.postgres.cdc.state import Captured, Column

Describe = Callable[[str], LoggedTable | None]


class Shaping:
    """Judges relations as they come. `to_copy`: tables that have to be copied again; nothing of them counts any more."""

    def __init__(
        self,
        captured: Mapping[str, Captured],
        tables: Mapping[str, LoggedTable],
        *,
        describe: Describe,
        without: Mapping[str, Collection[str]],
        drift: str,
    ) -> None:
        self._captured = dict(captured)
        self._tables = dict(tables)
        self._describe = describe
        self._without = without
        self._drift = drift
        self._shapes: dict[str, Shape] = {}
        self.to_copy: dict[str, str] = {}

    def table(self, name: str) -> LoggedTable:
        """The table as it was described last."""
        return self._tables[name]

    def captured(self) -> dict[str, Captured]:
        """The tables as they are after everything that was shaped so far, without those that have to be copied."""
        return {name: table for name, table in self._captured.items() if name not in self.to_copy}

    def look(self, tables: Mapping[str, LoggedTable]) -> None:
        """Judge tables by what they are now: a change that only rows show which were there before is in no log."""
        for name in tables:
            if name not in self._captured:
                self.to_copy[name] = "it is new"
        for name, captured in self._captured.items():
            now, known = tables.get(name), {column.name: column for column in captured.columns}
            if now is None or name in self.to_copy:
                continue
            for each in now.columns:
                before = known.get(each.column.name)
                is_other = before is not None and before != each.column
                if is_other or (before is None and (each.was_filled or each.column.number <= captured.last_number)):
                    reason = f"its column {each.column.name!r} is new, or another one than before, in rows that were there"
                    self._refuse_unless_allowed(name, reason)
                    self.to_copy[name] = reason

    def shape(self, relation: Relation) -> Shape | None:
        """How the changes that follow are taken; None: not at all. Raises SchemaDrifted where the job does not want that."""
        name = relation.name
        if name not in self._captured or name in self.to_copy:
            return None
        reason = self._judge(relation)
        if reason:
            self._refuse_unless_allowed(name, reason)
            self.to_copy[name] = reason
            return None
        table = self._tables[name]
        names = tuple(column.name for column in relation.columns)
        places = tuple(at for at, each in enumerate(names) if each not in self._left_out(name))
        kept = tuple(names[at] for at in places)
        keys = tuple(kept.index(key) for key in self._keys(table, relation))
        shape = Shape(name, kept, keys, None if len(places) == len(names) else places)
        # Why: segments of one shape are joined, and it is asked for each row whether it is the same one.
        return self._shapes.setdefault(name, shape) if self._shapes.get(name) == shape else self._now(name, shape)

    def _keys(self, table: LoggedTable, relation: Relation) -> tuple[str, ...]:
        keys = table.keys_of(relation)
        if missing := sorted(set(keys) & set(self._left_out(table.name))):
            raise SourceRefused(f"{table.name}: `without` takes {', '.join(missing)} away, which names its rows.")
        return keys

    def give_up(self, table: str, reason: str) -> None:
        """The table has to be copied again."""
        self.to_copy[table] = reason

    def _now(self, name: str, shape: Shape) -> Shape:
        self._shapes[name] = shape
        return shape

    def _left_out(self, table: str) -> Collection[str]:
        return self._without.get(table, ())

    def _judge(self, relation: Relation) -> str:
        """Why the table has to be copied; empty when its changes can be taken. New columns are noted."""
        name = relation.name
        if not self._is_as_described(relation):
            now = self._describe(name)
            if now is None:
                return "it is no longer there"
            self._tables[name] = now
            if not self._is_as_described(relation):
                return "its columns have changed more than once"
        table, known = self._tables[name], {column.name: column for column in self._captured[name].columns}
        added: list[Column] = []
        for each in relation.columns:
            if each.name in self._left_out(name):
                continue
            found = table.column(each.name)
            assert found is not None
            before = known.get(each.name)
            if before == found.column:
                continue
            if before is not None:
                return f"its column {each.name!r} has another type"
            if found.column.number <= self._captured[name].last_number or found.was_filled:
                return f"its column {each.name!r} came with values"
            added.append(found.column)
        kept = {each.name for each in relation.columns}
        gone = [column.name for column in self._captured[name].columns if column.name not in kept]
        self._note(name, added, gone)
        return ""

    def _is_as_described(self, relation: Relation) -> bool:
        """Whether all its columns are there now, as it has them. Columns that are gone by now were in it before."""
        table = self._tables[relation.name]
        for each in relation.columns:
            if each.name in self._left_out(relation.name):
                continue
            found = table.column(each.name)
            if found is None or (found.column.type_oid, found.column.type_modifier) != (each.type_oid, each.type_modifier):
                return False
        return True

    def _note(self, name: str, added: list[Column], gone: list[str]) -> None:
        if not added and not gone:
            return
        changes = [f"+{column.name}" for column in added] + [f"-{column}" for column in gone]
        self._refuse_unless_allowed(name, ", ".join(changes))
        before = self._captured[name]
        columns = tuple(column for column in before.columns if column.name not in gone) + tuple(added)
        self._captured[name] = Captured(columns, before.start)

    def _refuse_unless_allowed(self, name: str, change: str) -> None:
        if self._drift == "freeze":  # Why not `ask`: the load asks, and knows what was accepted
            raise SchemaDrifted(f"The columns of {name} have changed at the source: {change}.")
