"""Messages of the log to batches: whole transactions only, and for each table what happened to its rows, in order.

What does not fit into memory lies in files meanwhile, however large a transaction is. A table's changes are cut into
segments, each of which can be netted by itself: at a TRUNCATE, at a change of columns, and where a row changes its key
while one of its values stays where it is, unsent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from pondkeeper.errors import PondkeeperError
from pondkeeper.kinds.postgres.cdc.messages import (
    UNCHANGED,
    Begin,
    Commit,
    Delete,
    Insert,
    Message,
    Relation,
    Truncate,
    Update,
    Values,
)

Row = tuple[int | str | None, ...]  # its number, what was done, which columns are unchanged (",3,7,"), the texts of the values
SET: Final = "U"  # the row with this key is now so
GONE: Final = "D"  # the row with this key is gone
ADDED: Final = "+"  # a table without keys: one more such row
REMOVED: Final = "-"  # and one less
MOST_CHANGES: Final = 1_000_000  # in one batch, unless one transaction has more
MOST_MOVED: Final = 100  # in one batch, and in one transaction: each is a statement of its own
_VALUE_BYTES: Final = 60  # what a value takes in Python beside its characters


@dataclass(frozen=True, slots=True)
class Shape:
    """The columns that changes come with, and which of them name a row; none: the whole row does."""

    table: str
    columns: tuple[str, ...]
    keys: tuple[int, ...]
    places: tuple[int, ...] | None = None  # where the columns are among those that come; None: just so

    def of(self, values: Values) -> Values:
        """The values of the columns."""
        return values if self.places is None else tuple(values[at] for at in self.places)


@dataclass(frozen=True, slots=True)
class Moved:
    """A row got another key, and some of its values (`Unchanged`) stay what they are under the old one."""

    old_key: tuple[str | None, ...]
    new: Values


@dataclass
class Segment:
    """Changes of a table that can be taken together; then `moved`, which ends it."""

    shape: Shape
    truncates: bool = False
    rows: list[Row] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    changes: int = 0
    size_bytes: int = 0
    unchanged: set[int] = field(default_factory=set)
    moved: Moved | None = None

    def join(self, later: Segment) -> None:
        """Take in what came after, of the same shape."""
        self.rows += later.rows
        self.files += later.files
        self.changes += later.changes
        self.size_bytes += later.size_bytes
        self.unchanged |= later.unchanged
        self.moved = later.moved


Segments = dict[str, list[Segment]]


@dataclass
class Batch:
    """Whole transactions, up to `position`. `first_commit_at` is when the oldest of them was committed at the source."""

    position: int = 0
    transactions: int = 0
    changes: int = 0
    moved: int = 0
    first_commit_at: float = 0.0
    last_commit_at: float = 0.0
    segments: Segments = field(default_factory=dict)


Shaper = Callable[[Relation], Shape | None]
GiveUp = Callable[[str, str], None]
Spill = Callable[[Shape, Sequence[Row]], Path]


class Gatherer:
    """Takes messages in their order and gives batches.

    `shaped` says what is done with a table's changes from here on (None: nothing); `starts` from which position on each
    table's changes count; `spill` writes rows to a file; `give_up` hears of a table that had better be copied again, and why.
    """

    def __init__(
        self, shaped: Shaper, starts: Mapping[str, int], spill: Spill, give_up: GiveUp, *, memory_bytes: int
    ) -> None:
        self._shaped = shaped
        self._give_up = give_up
        self._starts = starts
        self._spill = spill
        self._memory_bytes = memory_bytes
        self._relations: dict[int, Relation] = {}
        self._shapes: dict[int, Shape | None] = {}
        self._open: Segments = {}
        self._open_bytes = 0
        self._ready_bytes = 0
        self._ready = Batch()
        self._final_lsn = 0
        self._number = 0
        self.in_transaction = False

    @property
    def waiting(self) -> Batch:
        """What could be handed over now."""
        return self._ready

    @property
    def is_full(self) -> bool:
        """Whether what waits should be handed over before more is taken."""
        waiting = self._ready
        return not self.in_transaction and (waiting.changes >= MOST_CHANGES or waiting.moved >= MOST_MOVED)

    def hand_over(self) -> Batch:
        """Everything that is whole; it is the taker's from now on."""
        batch, self._ready, self._ready_bytes = self._ready, Batch(), 0
        return batch

    def take(self, message: Message) -> None:  # noqa: C901 - one message, one branch
        """The next message of the log."""
        if isinstance(message, Insert):
            if shape := self._shape_of(message.relation):
                self._add(shape, SET if shape.keys else ADDED, shape.of(message.new))
        elif isinstance(message, Update):
            if shape := self._shape_of(message.relation):
                self._update(shape, message)
        elif isinstance(message, Delete):
            if shape := self._shape_of(message.relation):
                self._delete(shape, message)
        elif isinstance(message, Begin):
            self._final_lsn = message.final_lsn
            self.in_transaction = True
        elif isinstance(message, Commit):
            self._commit(message)
        elif isinstance(message, Relation):
            self._relations[message.id] = message
            self._shapes.pop(message.id, None)
        elif isinstance(message, Truncate):
            for relation in message.relations:
                if shape := self._shape_of(relation):
                    _discard(self._open.get(shape.table, ()))
                    self._open[shape.table] = [Segment(shape, truncates=True, changes=1)]

    def _shape_of(self, relation: int) -> Shape | None:
        """How a change is taken; None where it is not.

        Why judged this late: what came before a table's copy was made says nothing of how the table is now.
        """
        about = self._relations[relation]
        if self._final_lsn < self._starts.get(about.name, 0):
            return None
        if relation not in self._shapes:
            self._shapes[relation] = self._shaped(about)
            if self._shapes[relation] is None:
                self._forget(about.name)
        return self._shapes[relation]

    def _forget(self, table: str) -> None:
        """Let go of what has come of this table: from here on nobody knows what to do with it."""
        for segments in (self._open, self._ready.segments):
            _discard(segments.pop(table, ()))

    def _update(self, shape: Shape, message: Update) -> None:
        new, old = shape.of(message.new), None if message.old is None else shape.of(message.old)
        if UNCHANGED in new and old is not None:
            known = range(len(new)) if message.is_whole else shape.keys
            new = tuple(old[at] if value is UNCHANGED and at in known else value for at, value in enumerate(new))
        if not shape.keys:
            if old is None or not message.is_whole:
                raise _unnamed(shape)
            self._add(shape, REMOVED, old)
            self._add(shape, ADDED, new)
            return
        if old is not None and (old_key := _key(shape, old)) != _key(shape, new):
            if UNCHANGED in new:
                self._move(message.relation, shape, Moved(old_key, new))
                return
            self._add(shape, GONE, old)
        self._add(shape, SET, new)

    def _move(self, relation: int, shape: Shape, moved: Moved) -> None:
        segment = self._segment(shape)
        segment.moved = moved
        segment.changes += 1
        if len(self._open[shape.table]) > MOST_MOVED:
            self._give_up(shape.table, "many of its rows got other keys in one transaction")
            self._shapes[relation] = None
            self._forget(shape.table)

    def _delete(self, shape: Shape, message: Delete) -> None:
        if not shape.keys and not message.is_whole:
            raise _unnamed(shape)
        self._add(shape, GONE if shape.keys else REMOVED, shape.of(message.old))

    def _add(self, shape: Shape, done: str, values: Values) -> None:
        segment = self._segment(shape)
        unchanged = ""
        if UNCHANGED in values:
            places = [at for at, value in enumerate(values) if value is UNCHANGED]
            if not shape.keys or any(at in shape.keys for at in places):
                raise _unnamed(shape)
            segment.unchanged.update(places)
            unchanged = f",{','.join(map(str, places))},"
            values = tuple(None if value is UNCHANGED else value for value in values)
        texts = _texts(values)
        self._number += 1
        segment.rows.append((self._number, done, unchanged, *texts))
        size_bytes = sum(map(len, filter(None, texts))) + _VALUE_BYTES * len(texts)
        segment.changes += 1
        segment.size_bytes += size_bytes
        self._open_bytes += size_bytes
        if self._open_bytes + self._ready_bytes > self._memory_bytes:
            self._make_room()

    def _segment(self, shape: Shape) -> Segment:
        """Where the next change of the table belongs."""
        segments = self._open.setdefault(shape.table, [])
        if not segments or segments[-1].shape is not shape or segments[-1].moved is not None:
            segments.append(Segment(shape))
        return segments[-1]

    def _make_room(self) -> None:
        """Write to files what lies in memory."""
        for segments in (*self._open.values(), *self._ready.segments.values()):
            for segment in segments:
                if segment.rows:
                    segment.files.append(self._spill(segment.shape, segment.rows))
                    segment.rows, segment.size_bytes = [], 0
        self._open_bytes = self._ready_bytes = 0

    def _commit(self, message: Commit) -> None:
        ready = self._ready
        if self._open:
            ready.first_commit_at = ready.first_commit_at or message.committed_at
            ready.transactions += 1
        for table, segments in self._open.items():
            ready.changes += sum(segment.changes for segment in segments)
            ready.moved += sum(segment.moved is not None for segment in segments)
            _append(ready.segments.setdefault(table, []), segments)
        ready.position = message.end_lsn
        ready.last_commit_at = message.committed_at
        self._ready_bytes += self._open_bytes
        self._open, self._open_bytes = {}, 0
        self.in_transaction = False


def _append(earlier: list[Segment], later: list[Segment]) -> None:
    """Put segments behind others: what was before a TRUNCATE counts no more, what can be taken together is."""
    if later[0].truncates:
        _discard(earlier)
        earlier[:] = later
    elif earlier and earlier[-1].shape is later[0].shape and earlier[-1].moved is None:
        earlier[-1].join(later[0])
        earlier += later[1:]
    else:
        earlier += later


def _key(shape: Shape, values: Values) -> tuple[str | None, ...]:
    return _texts(tuple(values[at] for at in shape.keys))


def _texts(values: Values) -> tuple[str | None, ...]:
    """Values of which none is UNCHANGED. Why a cast: this is asked for every row."""
    return cast("tuple[str | None, ...]", values)


def _discard(segments: Iterable[Segment]) -> None:
    """Remove the files of changes that count no more."""
    for segment in segments:
        for file in segment.files:
            file.unlink(missing_ok=True)


def _unnamed(shape: Shape) -> PondkeeperError:
    return PondkeeperError(f"A change of {shape.table!r} came without the row that it changed.")
