"""Judges a recorded history: no lost, doubled or re-ordered write, reads never go back, `at_least` is honoured.

What a keeper promises is: there is one order of all writes; it agrees with real time (a write that was answered before
another was sent comes before it); each version is a beginning of that order; a write answered with version v is in v and in
all later ones. The checker looks for such an order and reports where there cannot be one. Values are unique, so what a read
found says which write it saw.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from campaigns.keyed import check_key
from campaigns.operations import (
    APPEND,
    BROKEN,
    COMMITTED,
    INSERT,
    READ,
    REFUSED,
    TAIL,
    UPDATE,
    Final,
    History,
    Operation,
)


def check(history: History) -> list[str]:
    """What is wrong with the history; nothing, in a world that works."""
    return [
        *_check_log(history.operations, history.final.log),
        *_check_sessions(history.operations),
        *_check_tails(history),
        *_check_rows(history),
    ]


# The log: every write is one row, so what became of each can be seen at the end


def _check_log(operations: Iterable[Operation], log: list[tuple[int, int]]) -> Iterator[str]:
    sent = {(each.client, each.n): each for each in operations if each.kind == APPEND}
    there = set(log)
    yield from (f"lost: append {row} was acknowledged" for row in _first(row for row, each in sent.items() if each.outcome == COMMITTED and row not in there))
    yield from (f"doubled: append {row}" for row in _first(row for row, times in Counter(log).items() if times > 1))
    yield from (f"refused and there: append {row}" for row in _first(row for row in there if row in sent and sent[row].outcome == REFUSED))
    yield from (f"there and never sent: append {row}" for row in _first(there - set(sent)))
    yield from _check_order(sent, log)


def _check_order(sent: dict[tuple[int, int], Operation], log: list[tuple[int, int]]) -> Iterator[str]:
    last: dict[int, int] = {}
    latest_begin, latest = 0.0, (0, 0)
    for row in log:
        client, n = row
        if n < last.get(client, 0):
            yield f"re-ordered: append {row} stands after number {last[client]} of the same client"
            return
        last[client] = n
        operation = sent.get(row)
        if operation is None:
            continue
        if operation.end < latest_begin:
            yield f"re-ordered: append {row} was answered before {latest} was sent, and stands after it"
            return
        if operation.begin > latest_begin:
            latest_begin, latest = operation.begin, row


# Sessions: what one client may expect of its own reads


def _check_sessions(operations: Iterable[Operation]) -> Iterator[str]:
    seen: dict[int, int] = {}
    for read in sorted((each for each in operations if each.is_read), key=lambda each: each.begin):
        version, before = read.version or 0, seen.get(read.client, 0)
        if read.at_least is not None and version < read.at_least:
            yield f"at_least not honoured: client {read.client} asked for {read.at_least} and got {version}"
        if version < before:
            yield f"reads went back: client {read.client} saw {before} and then {version}"
        seen[read.client] = max(version, before)


def _check_tails(history: History) -> Iterator[str]:
    """A client counts its own rows: all that were answered with this version or an earlier one, none not yet sent."""
    appends: dict[int, list[Operation]] = defaultdict(list)
    for operation in sorted(history.operations, key=lambda each: each.n):
        if operation.kind == APPEND and operation.outcome != REFUSED:
            appends[operation.client].append(operation)
    for tail in history.operations:
        if tail.kind != TAIL:
            continue
        own, version, found = appends[tail.client], tail.version or 0, tail.value or 0
        least = sum(each.outcome == COMMITTED and (each.version or 0) <= version for each in own if each.end <= tail.begin)
        most = sum(each.begin <= tail.end for each in own)
        if found < least:
            yield f"stale: client {tail.client} saw {found} of its rows in version {version}, which must have {least}"
        if found > most:
            yield f"too many: client {tail.client} saw {found} of its rows, and had sent {most}"


# Keyed rows: inserted, updated, deleted; only some of the states are ever seen


def _check_rows(history: History) -> Iterator[str]:
    keyed: dict[int, list[Operation]] = defaultdict(list)
    for operation in history.operations:
        if operation.key is not None:
            keyed[operation.key].append(operation)
    for key in sorted(keyed | history.final.rows):
        operations = keyed[key]
        found = [*_check_values(key, operations, history.final), *_check_versions(key, operations)]
        yield from found
        if not found and (wrong := check_key(operations, history.final.rows.get(key), history.faults)):
            yield f"key {key}: {wrong}"


def _check_values(key: int, operations: list[Operation], final: Final) -> Iterator[str]:
    written = {each.value for each in operations if each.kind in (INSERT, UPDATE) and each.outcome not in (REFUSED, BROKEN)}
    for read in operations:
        if read.kind == READ and read.value is not None and read.value not in written:
            yield f"key {key}: client {read.client} read {read.value}, which nobody has written or which was refused"
    if (last := final.rows.get(key)) is not None and last not in written:
        yield f"key {key}: at the end there is {last}, which nobody has written or which was refused"


def _check_versions(key: int, operations: list[Operation]) -> Iterator[str]:
    """A version never changes."""
    seen: dict[int, int | None] = {}
    for read in operations:
        if read.kind == READ and read.version is not None and seen.setdefault(read.version, read.value) != read.value:
            yield f"key {key}: version {read.version} had {seen[read.version]} and then {read.value}"


def _first(found: Iterable[tuple[int, int]], most: int = 5) -> list[tuple[int, int]]:
    return sorted(found)[:most]
