"""The steps of a load as plain data: what is done with which table, and with which staged files. No DuckDB here.

A load is a list of steps in one transaction, in order. `files` are Parquet or Arrow's file format, together the rows of
the step; columns find their places by name, whatever the case. `table` is `table` or `schema.table`; a name with a dot in
it in double quotes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Final, Literal

import msgspec

from pondkeeper.errors import InvalidRequest

Drift = Literal["allow", "freeze", "ask"]
Files = Sequence[str | os.PathLike[str]]
Types = Mapping[str, str]
MOST_STEPS: Final = 1000


@dataclass(frozen=True)
class Step:
    """One step. Its count of rows belongs to `table` ("": to none)."""

    word: ClassVar[str] = ""
    table: str

    @property
    def paths(self) -> list[str]:
        """The files of the step."""
        return []

    def with_paths(self, places: Mapping[str, str]) -> Step:  # noqa: ARG002  Why: only steps with files have any
        """The same step on the same files in other places."""
        return self

    def to_wire(self) -> dict[str, Any]:
        """The step as plain data, paths absolute."""
        wire: dict[str, Any] = {"step": self.word}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "files":
                value = list(map(os.path.abspath, self.paths))
            wire[each.name] = dict(value) if isinstance(value, Mapping) else value
        return wire

    @staticmethod
    def from_wire(wire: Mapping[str, Any]) -> Step:
        """The step that `to_wire` described. Raises InvalidRequest."""
        try:
            checked = msgspec.convert(wire, _Wire)
            return _KINDS[checked.step](**{name: getattr(checked, name) for name in wire if name != "step"})
        except (KeyError, TypeError, msgspec.ValidationError) as error:
            raise InvalidRequest(f"A step of the load is not of the expected shape: {error}.") from error


@dataclass(frozen=True)
class FilesStep(Step):
    """What all steps with staged rows say."""

    files: Files

    @property
    def paths(self) -> list[str]:
        return [os.fspath(file) for file in self.files]

    def with_paths(self, places: Mapping[str, str]) -> Step:
        return replace(self, files=[places[path] for path in self.paths])


@dataclass(frozen=True)
class RowsStep(FilesStep):
    """What all steps that put rows into a table say.

    `types` names the types that columns of the table have or get, where the file's own do not say it (Parquet has no
    INTERVAL that everybody reads: stage the text, and say `{"lasts": "INTERVAL"}`). `create`: a missing table is made, with
    its schema. `drift`: what is done when the files' columns are not the table's: `allow` changes the table, `freeze`
    refuses, `ask` refuses until a person has accepted just this change.
    """

    types: Types = field(default_factory=dict, kw_only=True)
    create: bool = field(default=True, kw_only=True)
    drift: Drift = field(default="allow", kw_only=True)


@dataclass(frozen=True)
class Replace(RowsStep):
    """The rows become the whole table. Readers see the old table or the new one; constraints and indexes stay."""

    word: ClassVar[str] = "replace"


@dataclass(frozen=True)
class Append(RowsStep):
    """The rows are added."""

    word: ClassVar[str] = "append"


@dataclass(frozen=True)
class Upsert(RowsStep):
    """Rows whose keys are in the table change it, in the columns that the files have; the others are added.

    Of several rows with equal keys the last one counts (files in their order, rows in theirs). NULLs are equal.
    """

    keys: Sequence[str]
    word: ClassVar[str] = "upsert"


@dataclass(frozen=True)
class Update(RowsStep):
    """Rows whose keys are in the table change it, in the columns that the files have; the others are left out."""

    keys: Sequence[str]
    word: ClassVar[str] = "update"


@dataclass(frozen=True)
class Delete(FilesStep):
    """Rows of the table whose keys are in the files go. `one_each`: for each row of the files one, not all that are equal."""

    keys: Sequence[str]
    one_each: bool = field(default=False, kw_only=True)
    word: ClassVar[str] = "delete"


@dataclass(frozen=True)
class KeepOnly(FilesStep):
    """Rows of the table whose keys are not in the files go. Trap: files without rows empty the table."""

    keys: Sequence[str]
    word: ClassVar[str] = "keep_only"


@dataclass(frozen=True)
class Truncate(Step):
    """All rows of the table go; where there is no such table there is nothing to do."""

    word: ClassVar[str] = "truncate"


@dataclass(frozen=True)
class Run(Step):
    """One writing statement, as `execute` takes it. The rows that it changes are counted for `table`."""

    table: str = field(default="", kw_only=True)
    sql: str
    parameters: Sequence[Any] | Mapping[str, Any] | None = None
    word: ClassVar[str] = "run"


_KINDS: Final[dict[str, type[Step]]] = {
    kind.word: kind for kind in (Replace, Append, Upsert, Update, Delete, KeepOnly, Truncate, Run)
}


class _Wire(msgspec.Struct, forbid_unknown_fields=True):
    """What any step may say, with its types; which of it a step says its class knows."""

    step: str
    table: str = ""
    files: list[str] = []
    keys: list[str] = []
    types: dict[str, str] = {}
    create: bool = True
    drift: Drift = "allow"
    one_each: bool = False
    sql: str = ""
    parameters: list[Any] | dict[str, Any] | None = None
