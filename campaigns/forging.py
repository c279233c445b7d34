"""Bad histories, each made from a good one by one change: what the checker must find.

A forgery is None where the history has nothing that could be forged that way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from campaigns.operations import APPEND, BROKEN, COMMITTED, READ, REFUSED, TAIL, UPDATE, Final, History, Operation

Forgery = Callable[[History], History | None]


def _with_log(history: History, log: list[tuple[int, int]]) -> History:
    return replace(history, final=Final(log, history.final.rows))


def _with(history: History, old: Operation, new: Operation) -> History:
    return replace(history, operations=[new if each is old else each for each in history.operations])


def _first(operations: Iterable[Operation]) -> Operation | None:
    return next(iter(operations), None)


def lost(history: History) -> History | None:
    """One acknowledged row is missing at the end."""
    log = history.final.log
    return _with_log(history, log[: len(log) // 2] + log[len(log) // 2 + 1 :]) if log else None


def doubled(history: History) -> History | None:
    """One row is there twice."""
    log = history.final.log
    return _with_log(history, [*log[:1], *log]) if log else None


def re_ordered(history: History) -> History | None:
    """Two rows of one client have changed places."""
    log, client = list(history.final.log), history.final.log[0][0] if history.final.log else None
    places = [place for place, row in enumerate(log) if row[0] == client]
    if len(places) < 2:
        return None
    first, second = places[0], places[1]
    log[first], log[second] = log[second], log[first]
    return _with_log(history, log)


def re_ordered_across_clients(history: History) -> History | None:
    """The last row of all stands first, though it was sent long after others were answered."""
    log = history.final.log
    if len(log) < 40:
        return None
    mover = next((row for row in reversed(log) if row[0] != log[0][0]), None)
    if mover is None:
        return None
    # Why all of its client's rows before it go too: else its own client's order would show the fault already.
    kept = [row for row in log if row[0] != mover[0] or row == mover]
    operations = [each for each in history.operations if not (each.kind in (APPEND, TAIL) and each.client == mover[0] and each.n != mover[1])]
    return replace(history, operations=operations, final=Final([mover, *(row for row in kept if row != mover)], history.final.rows))


def refused_and_there(history: History) -> History | None:
    """A client was told that its write was refused, and it is there."""
    old = _first(each for each in history.operations if each.kind == APPEND and each.outcome == COMMITTED)
    return _with(history, old, replace(old, outcome=REFUSED, version=None)) if old else None


def out_of_nowhere(history: History) -> History | None:
    """A read finds a value that nobody has written."""
    old = _first(each for each in history.operations if each.kind == READ and each.value is not None)
    return _with(history, old, replace(old, value=-1)) if old else None


def gone_back(history: History) -> History | None:
    """A client's read is answered from a version before its last one."""
    reads = [each for each in history.operations if each.kind == TAIL and each.at_least is None]
    old = _first(each for each in reads if any(_is_earlier(other, each) for other in history.operations))
    return _with(history, old, replace(old, version=1, value=0)) if old else None


def _is_earlier(other: Operation, operation: Operation) -> bool:
    return other.is_read and other.client == operation.client and other.begin < operation.begin and (other.version or 0) > 1


def at_least_ignored(history: History) -> History | None:
    """A read that waited for a version is answered from the one before."""
    old = _first(each for each in history.operations if each.at_least is not None and each.kind == READ)
    return _with(history, old, replace(old, version=(old.at_least or 0) - 1)) if old else None


def stale(history: History) -> History | None:
    """The version is as promised, and one of the client's rows that it must have is not in it."""
    old = _first(each for each in history.operations if each.kind == TAIL and each.at_least is not None and (each.value or 0) > 1)
    return _with(history, old, replace(old, value=0)) if old else None


def changed_version(history: History) -> History | None:
    """Two reads of one key in one version differ."""
    seen: set[tuple[int | None, int | None]] = set()
    for read in (each for each in history.operations if each.kind == READ):
        if (read.key, read.version) in seen and read.value is not None:
            return _with(history, read, replace(read, value=None))
        seen.add((read.key, read.version))
    return None


def update_lost(history: History) -> History | None:
    """The last update of a row is not there at the end: the row is as it was before it."""
    for key, value in history.final.rows.items():
        others = [each for each in history.operations if each.key == key and each.kind == UPDATE and each.changed and each.value != value]
        last = next((each for each in history.operations if each.value == value and each.kind == UPDATE), None)
        before = [each for each in others if last is not None and each.end < last.begin]
        if last is not None and last.outcome == COMMITTED and before:
            rows = history.final.rows | {key: before[-1].value or 0}
            return replace(history, final=Final(history.final.log, rows))
    return None


def update_of_nothing(history: History) -> History | None:
    """A row that is there at the end, and was never touched again, is said not to have been met by its last update."""
    for value in history.final.rows.values():
        last = _first(each for each in history.operations if each.value == value and each.kind == UPDATE and each.changed)
        if last is not None:
            return _with(history, last, replace(last, changed=0))
    return None


def inserted_over_a_row(history: History) -> History | None:
    """An insert that met a row of its key, with no other write near, is said to have been committed."""
    version = max((each.version or 0 for each in history.operations), default=0)
    for old in history.operations:
        if old.outcome == BROKEN and not any(_overlaps(old, each) for each in history.operations):
            return _with(history, old, replace(old, outcome=COMMITTED, changed=1, version=version))
    return None


def _overlaps(one: Operation, other: Operation) -> bool:
    is_other_write = other is not one and other.key == one.key and not other.is_read
    return is_other_write and other.begin <= one.end and one.begin <= other.end


FORGERIES: dict[str, Forgery] = {
    "lost": lost,
    "doubled": doubled,
    "re-ordered": re_ordered,
    "re-ordered across clients": re_ordered_across_clients,
    "refused and there": refused_and_there,
    "out of nowhere": out_of_nowhere,
    "gone back": gone_back,
    "at_least ignored": at_least_ignored,
    "stale": stale,
    "a version that changed": changed_version,
    "update lost": update_lost,
    "update of nothing": update_of_nothing,
    "inserted over a row": inserted_over_a_row,
}
