"""What a job of change data capture remembers: in the warehouse, with its rows, and beside it what only spares work."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pondkeeper.files.durable import make_folder, write_atomic
from pondkeeper.kinds.postgres.cdc.lsn import format_lsn, parse_lsn

MODE: Final = "cdc"
_SEEN_FILE: Final = "seen.json"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a captured table; `number` is the source's own, which no later column of the table gets again."""

    name: str
    type_oid: int
    type_modifier: int
    number: int


@dataclass(frozen=True, slots=True)
class Captured:
    """A table as the warehouse has it: its columns, and the position its copy was made at. Changes before are in the copy."""

    columns: tuple[Column, ...]
    start: int

    @property
    def last_number(self) -> int:
        return max((column.number for column in self.columns), default=0)


@dataclass(frozen=True, slots=True)
class State:
    """Committed with the rows: up to where the log is in them. `tables` by the name `schema.table` they have at the source."""

    system: str
    slot: str
    position: int
    tables: Mapping[str, Captured]

    def moved(self, position: int, tables: Mapping[str, Captured] | None = None) -> State:
        """The state further on."""
        return replace(self, position=position, tables=self.tables if tables is None else tables)

    def to_json(self) -> dict[str, Any]:
        """As the warehouse keeps it."""
        tables = {
            name: {
                "start": format_lsn(each.start),
                "columns": [[column.name, column.type_oid, column.type_modifier, column.number] for column in each.columns],
            }
            for name, each in self.tables.items()
        }
        position = format_lsn(self.position)
        return {"mode": MODE, "system": self.system, "slot": self.slot, "position": position, "tables": tables}

    @staticmethod
    def from_json(wire: Mapping[str, Any] | None) -> State | None:
        """What `to_json` gave; None for no state and for that of another mode."""
        if wire is None or wire.get("mode") != MODE:
            return None
        tables = {
            name: Captured(tuple(Column(*column) for column in each["columns"]), parse_lsn(each["start"]))
            for name, each in wire["tables"].items()
        }
        return State(wire["system"], wire["slot"], parse_lsn(wire["position"]), tables)


class Seen:
    """How far the log was looked through with nothing in it for us, beyond the warehouse's position; in the job's folder.

    Why: a source's log grows whether or not our tables change, and the slot must let go of it; but a version of the
    warehouse for each minute in which nothing happened is nobody's wish. Written before the source is told.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self._file = folder / _SEEN_FILE

    def note(self, slot: str, position: int, seen: int) -> None:
        """With the warehouse at `position`, there is nothing for it up to `seen`."""
        wire = {"slot": slot, "position": format_lsn(position), "seen": format_lsn(seen)}
        write_atomic(self._file, json.dumps(wire).encode())

    def beyond(self, slot: str, position: int) -> int:
        """How far that is known for a warehouse that stands at `position`; `position` itself where nothing is."""
        try:
            wire = json.loads(self._file.read_bytes())
            if wire["slot"] == slot and parse_lsn(wire["position"]) == position:
                return max(position, parse_lsn(wire["seen"]))
        except (OSError, ValueError, KeyError, TypeError):  # there is none, or not ours: then it is not known
            pass
        return position
