"""Which writes share a transaction, and which of those share a statement."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pondkeeper.engine.fusing import Kinds, RowInsert, joined, kinds_of, row_insert
from pondkeeper.engine.writing import Judge
from pondkeeper.errors import PondkeeperError
from pondkeeper.writer.batch import Member

SHARING_KINDS = frozenset({"insert", "update", "delete", "merge_into"})
FUSED_AT_LEAST = 4  # Why: an Arrow table costs about as much as three statements.


@dataclass
class Step:
    """Members that run by one statement: one member, or equal one-row INSERTS with their rows."""

    members: list[Member]
    insert: RowInsert | None = None
    kinds: Kinds = ()
    rows: dict[int, list[Any]] = field(default_factory=dict)


def groups(members: Iterable[Member], judge: Judge) -> deque[list[Member]]:
    """The members cut into groups that share a transaction; everything but single changes of rows is alone."""
    found: deque[list[Member]] = deque()
    is_shared = False
    keys: set[str] = set()
    for member in members:
        may_share = _may_share(member, judge)
        if may_share and is_shared and member.key not in keys:
            found[-1].append(member)
        else:
            found.append([member])
            keys.clear()
        if member.key is not None:
            keys.add(member.key)  # Why: the second of two with one key is to find the outcome of the first.
        is_shared = may_share
    return found


def _may_share(member: Member, judge: Judge) -> bool:
    if member.load is not None or len(member.statements) != 1:
        return False
    try:
        return judge(member.statements[0][0]).kind in SHARING_KINDS
    except PondkeeperError:  # it is told so when its turn has come
        return False


def is_lone_insert(group: list[Member]) -> bool:
    """Whether the group is one row to insert, with nothing to remember: its statement may be its own transaction."""
    [member, *others] = group
    if others or member.key is not None or member.load is not None or len(member.statements) != 1:
        return False
    return row_insert(member.statements[0][0]) is not None


def steps(group: list[Member]) -> list[Step]:
    """The statements to run for a group, in order: neighbours that insert one row each in the same way are fused."""
    found: list[Step] = []
    for member in group:
        step = _step(member)
        if not (found and _fuse(found[-1], step)):
            found.append(step)
    return [single for step in found for single in _taken_apart(step)]


def _step(member: Member) -> Step:
    if member.load is not None:
        return Step([member])
    sql, parameters = member.statements[0]
    insert = row_insert(sql) if len(member.statements) == 1 else None
    row = insert.row(parameters) if insert else None
    kinds = kinds_of(row) if row else None
    if insert is None or row is None or kinds is None:
        return Step([member])
    return Step([member], insert, kinds, {member.number: row})


def _fuse(step: Step, new: Step) -> bool:
    """Take the new step into this one, if it is equal."""
    if step.insert is None or step.insert != new.insert:
        return False
    kinds = joined(step.kinds, new.kinds)
    if kinds is None:
        return False
    step.kinds = kinds
    step.members += new.members
    step.rows |= new.rows
    return True


def _taken_apart(step: Step) -> list[Step]:
    if len(step.members) >= FUSED_AT_LEAST:
        return [step]
    return [Step([member]) for member in step.members]
