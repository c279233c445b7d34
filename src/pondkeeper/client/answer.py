"""What a keeper answers, as values: columns and rows of a query, the outcome of a write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """One column of an answer: its name and DuckDB's name of its type."""

    name: str
    type: str


@dataclass(frozen=True)
class Answer:
    """The whole answer of a query, in Python's own values as JSON carries them (docs/reference/types.md)."""

    columns: tuple[Column, ...]
    rows: list[list[Any]]
    row_count: int
    truncated: bool
    limit: str | None
    version: int
    elapsed_ms: float

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Answer:
        """The answer that the JSON body of a query holds."""
        return cls(
            columns=tuple(Column(column["name"], column["type"]) for column in wire["columns"]),
            rows=wire["rows"],
            row_count=wire["row_count"],
            truncated=wire["truncated"],
            limit=wire.get("limit"),
            version=wire["version"],
            elapsed_ms=wire["elapsed_ms"],
        )

    @property
    def names(self) -> list[str]:
        """The names of the columns, in order."""
        return [column.name for column in self.columns]

    def dicts(self) -> Iterator[dict[str, Any]]:
        """Each row as a dict by column name; of columns with equal names the last one wins."""
        names = self.names
        return (dict(zip(names, row, strict=True)) for row in self.rows)

    def scalar(self) -> Any:
        """The one value of an answer of one row and one column."""
        if len(self.rows) != 1 or len(self.columns) != 1:
            raise ValueError(f"the answer has {len(self.rows)} rows and {len(self.columns)} columns, not one value")
        return self.rows[0][0]

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Outcome:
    """What became of a write: `version` is that of the snapshot that contains it; pass it on as `at_least`."""

    outcome: str
    version: int
    rows_changed: int | list[int]

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Outcome:
        """The outcome that the JSON body of an execute holds."""
        return cls(outcome=wire["outcome"], version=wire["version"], rows_changed=wire["rows_changed"])


@dataclass(frozen=True)
class Ingested:
    """What became of an ingest: committed with a `version`, or accepted with a `ticket` by which to ask later.

    `rows` were taken; `rejected` were not, and `Client.rejects(rejects)` has them. Times are the keeper's own.
    """

    outcome: str
    version: int | None = None
    rows: int | None = None
    rejected: int = 0
    rejects: str | None = None
    ticket: str | None = None
    staging_ms: float | None = None
    hold_ms: float | None = None

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Ingested:
        """The outcome that the JSON body of an ingest holds."""
        return cls(**{name: wire[name] for name in cls.__dataclass_fields__ if name in wire})
