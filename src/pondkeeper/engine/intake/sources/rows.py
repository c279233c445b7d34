"""What a body looks like to whoever stages it: named columns, read in passes, each row with its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import pyarrow as pa

from pondkeeper.errors import BodyInvalid, BodyTooLarge

PLACE: Final = "__pondkeeper_place"
MAX_ROW_BYTES: Final = 16 * 1024 * 1024
MAX_COLUMNS: Final = 4096
ANY_COUNT: Final = 2**63 - 1


@dataclass(frozen=True)
class BadRow:
    """A row that is not taken: where it stands, what is wrong with it, and the row itself as far as it can be shown."""

    place: int
    faults: list[dict[str, Any]]
    record: Any

    @classmethod
    def whole(cls, place: int, reason: str, record: Any) -> BadRow:
        """A row that cannot even be cut into columns."""
        return cls(place, [{"column": None, "reason": reason, "value": None}], record)


OnBad = Callable[[BadRow], None]


def raise_bad(_: BadRow) -> None:
    """What a pass does with a bad row that has found none before: the body has changed under us, or we are wrong."""
    raise BodyInvalid("The body could not be read a second time as it was read the first time.")


class Source(Protocol):
    """A body. Its `names` are in order; None while only a survey (or a pass) can tell them."""

    @property
    def word(self) -> Literal["line", "row"]:
        """What places count."""

    @property
    def form(self) -> Literal["text", "json", "value"]:
        """How values are written."""

    @property
    def names(self) -> list[str] | None:
        """The columns of the body."""

    @property
    def deep(self) -> frozenset[str]:
        """After a survey: the columns with values of very many levels, which nobody is to describe."""

    def survey(self) -> list[str]:
        """Read everything, if need be, to learn the names of all columns."""

    def read(self, names: Sequence[str], on_bad: OnBad) -> pa.RecordBatchReader:
        """A pass over the rows: `PLACE` and these columns. Rows that cannot be cut into columns go to `on_bad`."""

    def seen(self) -> tuple[list[str], dict[str, int]]:
        """After a pass: those of the names that any row had, and other columns with the place where each came first."""


def insist_on_few(rows: int, max_rows: int) -> None:
    """Raise BodyTooLarge when there are more rows than there may be: a few bytes can stand for billions."""
    if rows > max_rows:
        raise BodyTooLarge(
            f"The body has more than {max_rows:,} rows.",
            remedy="Ingest it in pieces, or raise `ingest.max_rows`.",
            max_rows=max_rows,
        )


def check_names(names: Sequence[str]) -> None:
    """Raise BodyInvalid for columns that nobody can tell apart."""
    if len(names) > MAX_COLUMNS:
        raise BodyInvalid(f"The body has {len(names)} columns, and {MAX_COLUMNS} are the most.")
    known: set[str] = set()
    for name in names:
        if name.lower() in known:
            raise BodyInvalid(f"The body has two columns {name[:100]!r}.", remedy="Give each column a name of its own.")
        known.add(name.lower())
        if not name or "\0" in name or name.lower() == PLACE:
            raise BodyInvalid("The body has a column without a usable name.", remedy="Give each column a name of its own.")
