"""Looking for tickets: an empty folder is not read again, and a new ticket is never missed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pondkeeper.writer import tickets
from pondkeeper.writer.tickets import SETTLED_NS, Ticket, oldest_ns


def test_a_ticket_is_seen_at_once_however_often_nobody_waited(tmp_path: Path) -> None:
    """Again and again nobody, then somebody, in every rhythm: the ticket is seen, and gone when it is dropped."""
    folder = tmp_path / "tickets"
    for round_ in range(30):
        for _ in range(3):
            assert oldest_ns(folder) is None
        time.sleep(round_ / 200)
        assert oldest_ns(folder) is None
        ticket = Ticket(folder, "somebody", "a test")
        assert oldest_ns(folder) is not None
        ticket.drop()
    assert oldest_ns(folder) is None


def test_an_empty_folder_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is known to be empty and has not changed since; one that has just changed is read."""
    folder = tmp_path / "tickets"
    Ticket(folder, "somebody", "a test").drop()
    reads: list[Path] = []
    monkeypatch.setattr(tickets, "_tickets", lambda place: reads.append(place) or [])
    oldest_ns(folder)
    oldest_ns(folder)
    assert len(reads) == 2
    os.utime(folder, ns=(time.time_ns(), time.time_ns() - 2 * SETTLED_NS))
    oldest_ns(folder)
    oldest_ns(folder)
    assert len(reads) == 3
