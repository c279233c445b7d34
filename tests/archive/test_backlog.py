"""What waits for the archive: whatever fails and in whatever order, no change is ever forgotten."""

from __future__ import annotations

import random

import pytest

from pondkeeper.archive.backlog import LONGEST_RETRY_S, Backlog
from pondkeeper.databases.archiving import Publication
from pondkeeper.errors import ArchiveUnavailable
from pondkeeper.snapshots.changes import MAX_RANGES, as_ranges


def publication(version: int, blocks: set[int] | None = frozenset(), since: int | None = None) -> Publication:  # type: ignore[assignment]  # a frozenset is not changed
    changed = None if blocks is None else as_ranges(blocks)
    since = version - 1 if since is None else since
    return Publication(version, f"/{version}", "2026-11-20T14:03:07.000+00:00", 262144, since, changed)


@pytest.mark.parametrize("seed", range(200))
def test_a_task_names_every_block_that_changed_since_its_base(seed: int) -> None:
    """Random publishes, attempts that succeed, fail and find the snapshot gone; against what really changed."""
    chance = random.Random(seed)
    backlog, now, version, in_store = Backlog(1.0), 0.0, 0, None
    changed_in: dict[int, set[int] | None] = {}
    task = None
    tried = 0
    for _ in range(60):
        now += chance.random() * 5
        if task is None and chance.random() < 0.5 and backlog.due_in_s(now) == 0.0:
            task = backlog.begin(now)
            tried += 1
            if task.changed is not None:
                assert task.since == in_store, "the child would not use it otherwise"
                since = range(task.since + 1, task.publication.version + 1)
                really = [changed_in[each] for each in since if each in changed_in]
                assert None not in really
                named = {block for first, end in task.changed for block in range(first, end)}
                assert named >= set().union(*(blocks for blocks in really if blocks is not None))
        elif task is not None and chance.random() < 0.6:
            outcome = chance.choice(["done", "done", "failed", "superseded"])
            if outcome == "done":
                in_store = task.publication.version
                backlog.done(now)
            elif outcome == "failed":
                backlog.failed(ArchiveUnavailable(), now)
            else:
                backlog.superseded(now)
            task = None
        else:
            version += 1
            blocks = None if chance.random() < 0.1 else {chance.randrange(50) for _ in range(chance.randrange(5))}
            changed_in[version] = blocks
            backlog.published(publication(version, blocks), now)
    assert tried > 5


def test_a_gap_between_versions_means_that_nothing_is_known() -> None:
    backlog = Backlog(1.0)
    backlog.published(publication(1, None), 0.0)
    backlog.begin(0.0)
    backlog.done(0.1)
    backlog.published(publication(2, {7}), 1.0)
    assert backlog.begin(1.0).changed == [(7, 8)]
    backlog.done(1.1)
    backlog.published(publication(4, {8}, since=3), 2.0)
    assert backlog.begin(2.0).changed is None


def test_the_lag_is_the_age_of_the_oldest_version_that_is_not_archived() -> None:
    backlog = Backlog(1.0)
    assert backlog.lag_s(5.0) == 0.0
    backlog.published(publication(1), 10.0)
    backlog.published(publication(2), 12.0)
    assert backlog.lag_s(13.0) == 3.0
    backlog.begin(13.0)
    backlog.published(publication(3), 14.0)
    backlog.published(publication(4), 15.0)
    assert backlog.lag_s(16.0) == 6.0
    backlog.done(16.0)
    assert backlog.lag_s(17.0) == 3.0, "version 3, which came while 2 was put in"
    backlog.begin(17.0)
    backlog.done(18.0)
    assert backlog.lag_s(20.0) == 0.0
    assert backlog.due_in_s(20.0) is None


def test_at_most_once_an_interval_and_ever_less_often_after_faults() -> None:
    backlog = Backlog(2.0)
    backlog.published(publication(1), 0.0)
    backlog.begin(0.0)
    assert backlog.due_in_s(0.5) is None, "one is under way"
    backlog.done(0.5)
    backlog.published(publication(2), 0.6)
    assert backlog.due_in_s(0.6) == pytest.approx(1.4)
    waits = []
    now = 10.0
    for _ in range(12):
        backlog.begin(now)
        backlog.failed(ArchiveUnavailable(), now)
        waits.append(backlog.due_in_s(now))
    for _ in range(3):
        backlog.begin(now, is_extra=True)
        backlog.failed(ArchiveUnavailable(), now)
        assert backlog.due_in_s(now) == waits[-1], "who asks does not put it off"
    assert waits == sorted(waits)
    assert waits[0] < 1
    assert waits[-1] == LONGEST_RETRY_S


def test_an_hour_without_the_archive_leaves_a_bounded_list() -> None:
    """1,200 versions, each with other blocks of a file of ten million."""
    backlog, chance = Backlog(1.0), random.Random(1)
    backlog.published(publication(1, set()), 0.0)
    backlog.begin(0.0)
    backlog.done(0.0)
    for version in range(2, 1_200):
        backlog.published(publication(version, {chance.randrange(10**7) for _ in range(3)}), version / 10)
        if version % 50 == 0:
            backlog.begin(version / 10)
            backlog.failed(ArchiveUnavailable(), version / 10)
    task = backlog.begin(4000.0)
    assert task.changed is not None
    assert len(task.changed) <= MAX_RANGES
