"""Logs of runs as they are read back: from any byte on, and their last lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from pondkeeper.jobs import logs
from pondkeeper.jobs.logs import offset_of_tail, read_piece


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read_piece(tmp_path / "log", 0) == b""
    assert offset_of_tail(tmp_path / "log", 10) == 0


def test_a_log_is_read_on_from_where_one_was(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"one\n")
    first = read_piece(file, 0)
    with file.open("ab") as more:
        more.write(b"two\n")

    assert (first, read_piece(file, len(first)), read_piece(file, 8)) == (b"one\n", b"two\n", b"")


@pytest.mark.parametrize("text", ["", "\n", "a", "a\n", "a\nb", "a\nb\n", "a\n\nb\n", "ä\n" * 10])
@pytest.mark.parametrize("lines", [0, 1, 2, 3, 100])
def test_the_last_lines_are_those_that_a_person_counts(tmp_path: Path, text: str, lines: int) -> None:
    file = tmp_path / "log"
    file.write_text(text)
    wanted = text.encode().splitlines(keepends=True)[-lines:] if lines else []

    assert file.read_bytes()[offset_of_tail(file, lines) :] == b"".join(wanted)


def test_of_a_huge_log_the_tail_is_looked_for_in_its_end_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_TAIL_BYTES", 10)
    file = tmp_path / "log"
    file.write_bytes(b"line\n" * 100)

    assert offset_of_tail(file, 1) == 495
    assert offset_of_tail(file, 50) == 490


def test_a_link_in_the_place_of_a_log_is_not_followed(tmp_path: Path) -> None:
    """A run may write into its folder: nothing outside of it may be read through its log."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "log").symlink_to(tmp_path / "secret")

    with pytest.raises(OSError, match="Too many levels"):
        read_piece(tmp_path / "log", 0)
