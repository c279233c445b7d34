"""The groups of a batch, applied in order: one transaction and one commit each, and every member as if it were alone.

A group that fails is rolled back and cut: what was before the failing statement runs again as a group, the failing one
alone for its own error, the rest after it. A fused statement that fails is halved until the guilty ones are alone.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Protocol

from pondkeeper.engine.faults import translate
from pondkeeper.engine.idempotency import Record
from pondkeeper.engine.writing import CommitUnknown, Transaction
from pondkeeper.errors import (
    DatabaseUnavailable,
    DiskFull,
    IdempotencyConflict,
    OutOfMemory,
    PartsApplied,
    PondkeeperError,
)
from pondkeeper.writer.batch import Batch, Member, Send
from pondkeeper.writer.grouping import Step, groups, is_lone_insert, steps
from pondkeeper.writer.session import Session

GROUP_S = 0.05
PATIENCE_S = 0.25
PATIENCE_POLL_S = 0.05
PRUNE_EVERY_S = 60.0


class Patience:
    """Interrupts a statement that keeps those before it in its group waiting for their commit: it runs alone later."""

    def __init__(self) -> None:
        self._waiting: tuple[Transaction, float] | None = None
        self._has_work = threading.Event()
        threading.Thread(target=self._watch, name="patience", daemon=True).start()

    def begin(self, transaction: Transaction) -> None:
        """A statement begins that others wait for."""
        self._waiting = (transaction, time.monotonic())
        self._has_work.set()

    def end(self) -> None:
        """Nobody waits any more."""
        self._waiting = None
        self._has_work.clear()

    def _watch(self) -> None:
        while self._has_work.wait():
            time.sleep(PATIENCE_POLL_S)
            waiting = self._waiting
            if waiting is not None and time.monotonic() - waiting[1] > PATIENCE_S:
                waiting[0].interrupt()


class Versions(Protocol):
    """Who says in which version a commit will be."""

    def record_commit(self, rows: int = 0) -> int:
        """The version of a commit that has just ended."""

    def version_of_all(self) -> int:
        """The version of everything that is committed."""


class Applier:
    """Applies the groups of a batch, one per call. Raises SystemExit when this process must not go on."""

    def __init__(self, send: Send, versions: Versions, keep_s: float) -> None:
        self._send = send
        self._versions = versions
        self._keep_s = keep_s
        self._prune_at = 0.0
        self._patience = Patience()

    def apply_next(self, session: Session, batch: Batch, ticket_ns: int | None = None) -> None:
        """Apply the next group of the batch, or find out how to cut it.

        `ticket_ns`: since when a program waits; what was asked for later does not go along with what was before.
        """
        if batch.plan is None:
            batch.plan = groups(batch.members, session.judge)
        group = batch.plan.popleft()
        if ticket_ns is not None:
            group = _cut_behind(group, batch.plan, ticket_ns)
        if not session.is_in_place():
            batch.refuse(group, _displaced())
            raise SystemExit(1)
        if is_lone_insert(group):
            self._insert_alone(session, batch, group)
            return
        if group[0].load is not None and self._refused_in_parts(session, batch, group[0]):
            return
        keyed = {member.key: member for member in group if member.key is not None}
        # Why not always: nearly every key is new, and one that is not stands in the way of its own record.
        if keyed and (any(map(_is_looked_up_first, keyed.values())) or session.outcomes.must_look_up(list(keyed))):
            group = self._without_known(session, batch, group, keyed)
        attempt = _Attempt(session, batch, steps(group), self._patience)
        try:
            if attempt.execute():
                self._commit(session, batch, attempt)
        finally:
            batch.transaction = None
        if (keyed or (group and group[0].load is not None)) and batch.is_over and batch.may_forget:
            self._prune(session)

    def _insert_alone(self, session: Session, batch: Batch, group: list[Member]) -> None:
        """One row, by a statement that is its own transaction: its turn and its commit begin together."""
        began_at = time.monotonic()
        members = batch.begin(group)
        if not members:
            return
        [member] = members
        [(sql, parameters)] = member.statements
        batch.transaction = session.lone_insert
        try:
            changed = session.lone_insert.run(
                sql, parameters, lambda: self._send({"op": "committing", "numbers": [member.number]})
            )
            if not session.is_in_place():
                raise CommitUnknown(_displaced())
            session.keep_wal()
        except CommitUnknown as unknown:
            batch.refuse(members, unknown.error, "unknown")
            raise SystemExit(1) from unknown
        except Exception as error:  # noqa: BLE001  Why: whatever the engine raises is the answer to this member.
            _refuse(batch, members, translate(error))
        else:
            # Why after the commit: a checkpoint may have begun meanwhile, and it need not have this commit.
            batch.applied({member.number: [changed]}, self._versions.record_commit(), time.monotonic() - began_at)
        finally:
            batch.transaction = None

    def _without_known(
        self, session: Session, batch: Batch, group: list[Member], keyed: dict[str, Member]
    ) -> list[Member]:
        """The group without those whose key was used before: they get the first outcome, or are refused."""
        for member in keyed.values():
            member.is_looked_up = True
        known = session.outcomes.known(list(keyed))
        for key, record in known.items():
            member = keyed[key]
            if member.digest != record.digest:
                batch.refuse([member], IdempotencyConflict())
            elif batch.begin([member]):
                batch.applied({member.number: record.rows_changed}, self._versions.version_of_all())
        return [member for member in group if member.key not in known]

    def _refused_in_parts(self, session: Session, batch: Batch, member: Member) -> bool:
        """Refuse several ingests in one load of which some were applied before: which rows are theirs nobody here knows."""
        assert member.load is not None
        known = session.outcomes.known([part.key for part in member.load.parts]) if member.load.parts else {}
        if known:
            batch.refuse([member], PartsApplied(known=sorted(known)))
        return bool(known)

    def _prune(self, session: Session) -> None:
        now = time.monotonic()
        if now >= self._prune_at:
            self._prune_at = now + PRUNE_EVERY_S
            if session.outcomes.forget(self._keep_s):
                self._versions.record_commit()

    def _commit(self, session: Session, batch: Batch, attempt: _Attempt) -> None:
        numbers = list(attempt.rows_changed)
        try:
            attempt.remember()
            attempt.transaction.commit(lambda: self._send({"op": "committing", "numbers": numbers}))
            if not session.is_in_place():
                raise CommitUnknown(_displaced())
            session.keep_wal()
        except CommitUnknown as unknown:
            batch.refuse(attempt.begun, unknown.error, "unknown")
            raise SystemExit(1) from unknown
        except PondkeeperError as error:
            if not attempt.looks_up_first(error):
                attempt.cut_after_commit(error)
        else:
            # Why after the commit: a checkpoint may have begun meanwhile, and it need not have this commit.
            rows = sum(map(sum, attempt.rows_changed.values()))
            batch.applied(attempt.rows_changed, self._versions.record_commit(rows), time.monotonic() - attempt.began_at)


class _Attempt:
    """One transaction of a group, up to its commit."""

    def __init__(self, session: Session, batch: Batch, todo: list[Step], patience: Patience) -> None:
        self.transaction = batch.transaction = session.transaction()
        self.rows_changed: dict[int, list[int]] = {}
        self.begun: list[Member] = []
        self.began_at = time.monotonic()
        self._batch = batch
        self._todo = todo
        self._patience = patience

    def execute(self) -> bool:
        """Run the statements; whether there is something to commit. Otherwise the batch's plan says how to go on."""
        began_at = self.began_at = time.monotonic()
        self._batch.announce(_members(self._todo))
        self.transaction.begin()
        for index, step in enumerate(self._todo):
            if self.begun and time.monotonic() - began_at > GROUP_S:  # Why: those before it have waited long enough.
                self._plan(_members(self._todo[index:]))
                break
            members = self._batch.begin(step.members)
            try:
                self._run(step, members)
            except Exception as error:  # noqa: BLE001  Why: whatever the engine raises is the answer to this member.
                self._cut(members, _members(self._todo[index + 1 :]), translate(error))
                return False
            self.begun += members
        if not self.begun:
            self.transaction.roll_back()
        return bool(self.begun)

    def remember(self) -> None:
        """Write down the outcomes of members with a key, to be committed with them."""
        records = [
            Record(member.key, member.digest, self.rows_changed[member.number])
            for member in self.begun
            if member.key is not None
        ]
        records += [part for member in self.begun if member.load is not None for part in member.load.parts]
        if records:
            self.transaction.remember(records)

    def _run(self, step: Step, members: list[Member]) -> None:
        if self.begun:
            self._patience.begin(self.transaction)
        try:
            if len(members) > 1 and step.insert is not None:
                rows = [step.rows[member.number] for member in members]
                inserted = self.transaction.insert_rows(step.insert, rows, step.kinds)
                if inserted != len(members):
                    raise RuntimeError(f"{inserted} rows inserted of {len(members)}")
                self.rows_changed |= {member.number: [1] for member in members}
            else:
                for member in members:
                    self.rows_changed[member.number] = self._run_one(member)
        finally:
            self._patience.end()

    def _run_one(self, member: Member) -> list[int]:
        if member.load is not None:
            return member.load.run(self.transaction)
        return [self.transaction.execute(sql, parameters) for sql, parameters in member.statements]

    def _cut(self, failing: list[Member], rest: list[Member], error: PondkeeperError) -> None:
        self.transaction.roll_back()
        before, half = self.begun, len(failing) // 2
        if error.fatal:
            self._refuse_one_and_die(failing, error)
        is_guilty = len(failing) == 1 and not before and not self.transaction.was_interrupted
        if is_guilty and not _ask_for_look_up(failing):
            _refuse(self._batch, failing, error)
            failing = []
        self._batch.put_back(before + failing)
        if len(failing) > 1 and not self.transaction.was_interrupted:
            self._plan(before, failing[:half], failing[half:], rest)
        else:
            self._plan(before, failing, rest)

    def looks_up_first(self, error: PondkeeperError) -> bool:
        """Whether a key among them may be why the commit was refused: then all of them go again, after a look."""
        if error.fatal or self.transaction.was_interrupted or not _ask_for_look_up(self.begun):
            return False
        self.transaction.roll_back()
        self._batch.put_back(self.begun)
        self._plan(self.begun)
        return True

    def cut_after_commit(self, error: PondkeeperError) -> None:
        """The commit was refused, or not even tried: one member is told so, of several each goes alone."""
        self.transaction.roll_back()
        if error.fatal:
            self._refuse_one_and_die(self.begun, error)
        if len(self.begun) == 1 and not self.transaction.was_interrupted:
            _refuse(self._batch, self.begun, error)
        self._batch.put_back(self.begun)
        self._plan(*([member] for member in self.begun))

    def _refuse_one_and_die(self, suspects: list[Member], error: PondkeeperError) -> None:
        """Why only one: of several it is not known whose fault it was; the successor runs each of them alone.

        A full disk is nobody's fault, and nothing of the transaction was applied: all of them are told.
        """
        if len(suspects) == 1 or isinstance(error, DiskFull):
            self._batch.refuse(suspects, error)
        self._batch.tell_end(error)
        raise SystemExit(1)

    def _plan(self, *parts: list[Member]) -> None:
        assert self._batch.plan is not None
        self._batch.plan.extendleft(part for part in reversed(parts) if part)


def _cut_behind(group: list[Member], plan: deque[list[Member]], ticket_ns: int) -> list[Member]:
    """The part of the group before that ticket; the rest goes back into the plan."""
    oldest_ns = min((member.asked_ns for later in plan for member in later), default=ticket_ns + 1)
    count = len(group)
    while count > 1 and (oldest_ns := min(oldest_ns, group[count - 1].asked_ns)) > ticket_ns:
        count -= 1
    if count < len(group):
        plan.appendleft(group[count:])
    return group[:count]


def _refuse(batch: Batch, guilty: list[Member], error: PondkeeperError) -> None:
    batch.refuse(guilty, error)
    if error.fatal or isinstance(error, OutOfMemory):
        raise SystemExit(1)  # Why: what the allocator still holds of it would be missing to the next write.


def _members(todo: list[Step]) -> list[Member]:
    return [member for step in todo for member in step.members]


def _is_looked_up_first(member: Member) -> bool:
    """Whether its key is looked up before it is applied: when that was asked for, and when applying it is much work."""
    return member.is_looked_up or member.load is not None


def _ask_for_look_up(members: list[Member]) -> bool:
    """Have the keys of these members looked up before they are applied; False when that was done, or there are none."""
    unsure = [member for member in members if member.key is not None and not member.is_looked_up]
    for member in unsure:
        member.is_looked_up = True
    return bool(unsure)


def _displaced() -> DatabaseUnavailable:
    error = DatabaseUnavailable("The database file was moved or replaced while the keeper had it open.", retry_after_s=1)
    error.fatal = True
    return error
