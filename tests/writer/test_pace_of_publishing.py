"""How soon a commit is published: at once when it is alone, a little later in a stream, unless somebody waits for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pondkeeper.writer import publishing
from pondkeeper.writer.publishing import STREAM_FROM_COMMITS, STREAM_PAUSE_S, Publisher


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """One that has published nothing yet; it is resumed as if a publish had just ended, and no time passes."""
    monkeypatch.setattr(publishing, "time", SimpleNamespace(monotonic=lambda: 1000.0))  # Why: a machine may stand still for longer than a pause.
    sent: list[dict[str, Any]] = []
    found = Publisher(sent.append, tmp_path, 5, 0.0)
    found.resume()
    return found


def due_in_s(publisher: Publisher) -> float:
    due = publisher.due_in_s
    assert due is not None
    return due


def test_a_lone_commit_is_published_at_once(publisher: Publisher) -> None:
    """One commit, or a few: nothing but the pause that follows every publish."""
    assert publisher.due_in_s is None
    for _ in range(STREAM_FROM_COMMITS - 1):
        assert publisher.record_commit() == 5
        assert due_in_s(publisher) < STREAM_PAUSE_S / 2


def test_a_stream_of_commits_is_published_a_little_later(publisher: Publisher) -> None:
    """From the fourth commit on the next version waits, however many come, and never longer than the pause."""
    for _ in range(STREAM_FROM_COMMITS):
        publisher.record_commit()
    first = due_in_s(publisher)
    for _ in range(100):
        publisher.record_commit()

    assert 0 < due_in_s(publisher) <= first <= STREAM_PAUSE_S + 0.01


def test_a_version_that_somebody_waits_for_does_not_wait(publisher: Publisher) -> None:
    """The wait for the version that is made next ends the longer pause; one for a version that is there already not."""
    for _ in range(STREAM_FROM_COMMITS):
        publisher.record_commit()
    publisher.want(4)
    assert due_in_s(publisher) > 0
    publisher.want(5)
    assert due_in_s(publisher) < STREAM_PAUSE_S / 2
