"""Rows collected in memory and written in short transactions: a statement that finds each batch of them as a relation."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from types import TracebackType
from typing import Any, Final, Protocol
from uuid import UUID

from pondkeeper.errors import InvalidRequest

SIZE: Final = 500
EVERY_S: Final = 5.0

_COMMENT: Final = r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*"
_WITH: Final = re.compile(rf"\A({_COMMENT}WITH\b(?:{_COMMENT}RECURSIVE\b)?)", re.IGNORECASE | re.DOTALL)

# Why this order: bool is an int and datetime is a date, for isinstance.
_TYPES: Final[tuple[tuple[type[Any], str], ...]] = (
    (bool, "BOOLEAN"), (int, "HUGEINT"), (float, "DOUBLE"), (Decimal, "DECIMAL(38, 10)"), (str, "VARCHAR"), (bytes, "BLOB"),
    (datetime, "TIMESTAMP"), (date, "DATE"), (time_of_day, "TIME"), (timedelta, "INTERVAL"), (UUID, "UUID"),
)  # fmt: skip
_LARGEST_BIGINT: Final = 2**63


class Execute(Protocol):
    """`Warehouse.execute`."""

    def __call__(self, sql: str, parameters: Mapping[str, Any], *, identity: str) -> int: ...


class Batch:
    """Rows for one statement, which is carried out with each batch of them, and with what is left at the end.

    It finds them in the relation `relation`: a common table expression that is put in front of it. Safe to use from several
    threads. A batch whose outcome is not known is sent again, with the same identity, before anything that came later.
    """

    def __init__(
        self,
        execute: Execute,
        sql: str,
        *,
        identity: str,
        relation: str = "batch",
        types: Mapping[str, str] | None = None,
        size: int = SIZE,
        every_s: float = EVERY_S,
    ) -> None:
        self.written = 0
        self._execute = execute
        self._sql = sql.strip().rstrip(";")
        self._identity = identity
        self._relation = relation
        self._types = dict(types) if types is not None else None
        self._size, self._every_s = size, every_s
        self._rows: list[Mapping[str, Any]] = []
        self._oldest_at = 0.0
        self._sent: list[Mapping[str, Any]] = []
        self._count = 0
        self._filling = threading.Lock()
        self._writing = threading.Lock()

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is left, also after an exception: what was done is done."""
        self.flush()

    def __len__(self) -> int:
        """Rows that are not written yet."""
        with self._filling:
            return len(self._rows) + len(self._sent)

    def add(self, **values: Any) -> None:
        """One more row, by the names of its columns. Writes a batch when it is full or old."""
        self.put(values)

    def put(self, row: Mapping[str, Any]) -> None:
        """One more row. Writes a batch when it is full or old."""
        with self._filling:
            if not self._rows:
                self._oldest_at = time.monotonic()
            self._rows.append(row)
        self.write_due()

    def write_due(self) -> None:
        """Write what is full or old by now."""
        if self.is_due():
            self._write(only_if_due=True)

    def is_due(self) -> bool:
        """Whether there is a full or an old batch."""
        with self._filling:
            old = bool(self._rows) and time.monotonic() - self._oldest_at >= self._every_s
            return old or len(self._rows) >= self._size

    def flush(self) -> None:
        """Write everything that was added; committed when this returns. Raises PondkeeperError."""
        self._write(only_if_due=False)

    def _write(self, *, only_if_due: bool) -> None:
        with self._writing:
            if only_if_due and not self.is_due() and not self._sent:
                return  # another thread has written it meanwhile
            while True:
                self._take()
                if not self._sent:
                    return
                sql, parameters = with_rows(self._sql, self._relation, self._sent, self._types)
                self._execute(sql, parameters, identity=f"{self._identity}/{self._count}")
                with self._filling:
                    self.written += len(self._sent)
                    self._sent = []

    def _take(self) -> None:
        """The next batch, unless the last one still waits for its outcome: that must stay what it was."""
        with self._filling:
            if self._sent or not self._rows:
                return
            self._sent, self._rows = self._rows[: self._size], self._rows[self._size :]
            self._count += 1


def with_rows(
    sql: str, relation: str, rows: Sequence[Mapping[str, Any]], types: Mapping[str, str] | None = None
) -> tuple[str, dict[str, Any]]:
    """The statement with the rows as a relation in front of it, and its parameters. Raises InvalidRequest.

    Without `types` they are told by the values. Every value travels as text and is cast: exact, whatever the way there.
    """
    names = list(types or dict.fromkeys(name for row in rows for name in row))
    columns, parameters = [], {}
    for place, name in enumerate(names):
        values = [row.get(name) for row in rows]
        kind = types[name] if types is not None else _type_of(name, values)
        # Trap: a list of 500 values as a parameter takes DuckDB 1.5 30 ms, seven of them 200 ms; one JSON text does not.
        parameters[f"{relation}_{place}"] = json.dumps([None if value is None else _text(value) for value in values])
        columns.append(f"unnest(CAST(from_json(${relation}_{place}, '[\"VARCHAR\"]') AS {kind}[])) AS {_quoted(name)}")
    if not columns:
        raise InvalidRequest("A row of a batch has no columns.", remedy="Name them: `batch.add(id=1, name='x')`.")
    return _with(sql, f"{relation} AS (SELECT {', '.join(columns)})"), parameters


def _with(sql: str, expression: str) -> str:
    if found := _WITH.match(sql):
        return f"{found[1]} {expression},{sql[found.end() :]}"
    return f"WITH {expression} {sql}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _type_of(name: str, values: Sequence[Any]) -> str:
    """The type that holds all values of a column."""
    found = {_kind_of(name, value) for value in values if value is not None}
    if len(found) == 1:
        return _narrowed(found.pop(), values)
    if found and found <= {"HUGEINT", "DOUBLE"}:
        return "DOUBLE"
    if not found:
        return "VARCHAR"
    raise InvalidRequest(f"The column {name!r} of a batch has values of several types: {', '.join(sorted(found))}.")


def _kind_of(name: str, value: Any) -> str:
    for kind, text in _TYPES:
        if isinstance(value, kind):
            return "TIMESTAMPTZ" if text == "TIMESTAMP" and value.tzinfo is not None else text
    raise InvalidRequest(
        f"The column {name!r} of a batch has a value that no simple type can hold: {type(value).__name__}.",
        remedy="Write tables and nested values with `ctx.stage()`.",
    )


def _narrowed(kind: str, values: Sequence[Any]) -> str:
    if kind == "HUGEINT":
        fits = all(value is None or -_LARGEST_BIGINT <= value < _LARGEST_BIGINT for value in values)
        return "BIGINT" if fits else kind
    if kind.startswith("DECIMAL"):
        return _decimal([value for value in values if value is not None])
    return kind


def _decimal(values: Sequence[Decimal]) -> str:
    """The type with as many places as the values have."""
    scale = max((-int(exponent) for value in values if isinstance(exponent := value.as_tuple().exponent, int)), default=0)
    return f"DECIMAL(38, {min(max(scale, 0), 38)})"


def _text(value: Any) -> str:
    """A value as DuckDB casts it back from text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return "".join(f"\\x{byte:02X}" for byte in value)
    if isinstance(value, timedelta):
        return f"{value // timedelta(microseconds=1)} microseconds"
    if isinstance(value, (datetime, time_of_day)):
        return value.isoformat(sep=" ") if isinstance(value, datetime) else value.isoformat()
    return str(value)
