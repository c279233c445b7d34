"""The audit on disk: whole, chained, and found out when anybody touches it."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pondkeeper.access import audit_writing
from pondkeeper.access.audit import MAX_WAITING, Audit, Entry
from pondkeeper.access.audit_reading import Filter, newest, records, verify
from pondkeeper.access.masking import first_word, without_literals, without_tokens
from pondkeeper.access.segments import segments, whole_lines
from pondkeeper.access.tokens import new_token
from pondkeeper.errors import AuditBroken, AuditUnavailable
from pondkeeper.settings import AuditSettings

Opened = Callable[..., Audit]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def opened(folder: Path) -> Iterator[Opened]:
    """Opens audits in the folder; those that are still open are closed at the end."""
    made: list[Audit] = []

    def open_(**settings: object) -> Audit:
        made.append(Audit.open(folder, replace(AuditSettings(), **settings)))
        return made[-1]

    yield open_
    for audit in made:
        audit.close()


def entry(sql: str = "SELECT 1", **fields: object) -> Entry:
    return replace(Entry(sql=sql, request="POST /v1/query", outcome="ok", status=200, began_at=time.time()), **fields)


def written(folder: Path, audit: Audit, count: int, **fields: object) -> None:
    for number in range(count):
        audit.note(entry(f"SELECT {number}", **fields))
    audit.close()


def is_written(audit: Audit) -> bool:
    return not audit._waiting


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_a_chain_of_several_keepers_and_segments_is_whole(folder: Path, opened: Opened) -> None:
    for _ in range(3):
        audit = opened(segment_bytes=4096)
        for part in range(4):
            for number in range(10):
                audit.note(entry(f"SELECT {part}, {number}"))
            wait_until(partial(is_written, audit))
        audit.close()
    verdict = verify(folder)
    assert (verdict.records, verdict.unclean_ends, verdict.unfinished_bytes) == (120, 0, 0)
    assert verdict.segments > 3
    assert verify(folder, verdict.head).has_expected


def test_records_hold_what_was_asked(folder: Path, opened: Opened) -> None:
    audit = opened()
    audit.note(entry("INSERT INTO t VALUES (1)", client=("10.0.0.7", 4711), database="sales", rows=1, elapsed_s=0.25))
    audit.close()
    [record] = newest(folder, Filter(database="sales"), 5)
    assert record["statement"] == "INSERT"
    assert record["sql"] == "INSERT INTO t VALUES (1)"
    assert (record["from"], record["rows"], record["elapsed_ms"]) == ("10.0.0.7:4711", 1, 250.0)
    assert not list(records(folder, Filter(database="other")))
    assert (folder / "00000001.ndjson").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("change", ["edit", "remove", "repeat", "swap"])
def test_every_change_of_a_line_is_found(folder: Path, opened: Opened, place: str, change: str) -> None:
    written(folder, opened(), 6)
    head = verify(folder).head
    [(_, path)] = segments(folder)
    lines = list(whole_lines(path))
    at = {"first": 0, "middle": len(lines) // 2, "last": len(lines) - 2}[place]
    if change == "edit":
        lines[at] = lines[at].replace(b'"at":"2', b'"at":"3')
    elif change == "remove":
        del lines[at]
    elif change == "repeat":
        lines.insert(at, lines[at])
    else:
        lines[at], lines[at + 1] = lines[at + 1], lines[at]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    with pytest.raises(AuditBroken):
        verify(folder, head)


def test_a_chain_that_was_cut_or_written_anew_lacks_the_hash_that_was_kept(folder: Path, opened: Opened) -> None:
    written(folder, opened(), 3)
    head = verify(folder).head
    [(_, path)] = segments(folder)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))
    verify(folder)  # Why: of a chain without its end, only who has kept its head can know.
    with pytest.raises(AuditBroken, match="cut, or written anew"):
        verify(folder, head)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_segment_that_is_missing_is_found(folder: Path, opened: Opened, which: int) -> None:
    for _ in range(4):
        written(folder, opened(), 2)
    segments(folder)[which][1].unlink()
    with pytest.raises(AuditBroken):
        verify(folder)


def test_bytes_added_behind_an_old_segment_are_found(folder: Path, opened: Opened) -> None:
    for _ in range(2):
        written(folder, opened(), 2)
    with segments(folder)[0][1].open("ab") as file:
        file.write(b'{"half')
    with pytest.raises(AuditBroken, match="no keeper has left"):
        verify(folder)


@given(cut=st.integers(1, 2000))
def test_what_a_kill_leaves_half_written_is_told_and_gone_on_from(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("audit")
    audit = Audit.open(folder, AuditSettings())
    written(folder, audit, 5)
    [(_, path)] = segments(folder)
    data = path.read_bytes()
    path.write_bytes(data[: max(0, len(data) - cut)])
    whole = sum(1 for line in whole_lines(path) if json.loads(line)["kind"] == "request")
    verify(folder)
    written(folder, Audit.open(folder, AuditSettings()), 2)
    verdict = verify(folder)
    assert verdict.records == whole + 2
    assert verdict.unclean_ends == 1 or not path.read_bytes()


def test_old_segments_go_and_that_they_went_is_recorded(folder: Path, opened: Opened) -> None:
    for _ in range(3):
        written(folder, opened(), 2)
    long_ago = time.time() - 1000
    for _, path in segments(folder)[:2]:
        os.utime(path, (long_ago, long_ago))
    written(folder, opened(keep_s=500.0), 1)
    assert [number for number, _ in segments(folder)] == [3, 4]
    assert verify(folder).removed_segments == 2


def test_beyond_its_size_the_oldest_go_first(folder: Path, opened: Opened) -> None:
    audit = opened(segment_bytes=4096, keep_bytes=64 * 1024)
    for number in range(100):
        audit.note(entry("SELECT '" + "x" * 2000 + f"{number}'"))
        wait_until(partial(is_written, audit))
    audit.close()
    assert sum(path.stat().st_size for _, path in segments(folder)) < 80 * 1024
    assert verify(folder).removed_segments > 0
    assert newest(folder, Filter(), 1)[0]["sql"].endswith("99'")


class Disk:
    """os.write as the audit sees it: it can be full, in the middle of a line."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self._write = os.write
        monkeypatch.setattr(audit_writing.os, "write", self.write)

    def write(self, descriptor: int, data: bytes) -> int:
        if not self.is_full:
            return self._write(descriptor, data)
        if len(data) > 10:
            return self._write(descriptor, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.fault
def test_an_audit_that_cannot_be_written_refuses_and_then_goes_on(
    folder: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    audit = opened()
    audit.check()
    disk.is_full = True
    audit.note(entry("SELECT 'while the disk was full'"))
    wait_until(lambda: audit.is_failing)
    with pytest.raises(AuditUnavailable) as refused:
        audit.check()
    assert str(folder) not in str(refused.value.to_wire())
    disk.is_full = False
    wait_until(lambda: not audit.is_failing)
    audit.check()
    audit.close()
    assert verify(folder).records == 1
    assert newest(folder, Filter(), 1)[0]["sql"] == "SELECT 'while the disk was full'"


@pytest.mark.fault
def test_at_best_effort_requests_go_on_and_what_is_missing_is_counted(
    folder: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    audit = opened(mode="best_effort")
    disk.is_full = True
    for _ in range(MAX_WAITING + 5_000):
        audit.note(Entry(outcome="ok"))
    wait_until(lambda: audit.is_failing)
    audit.check()
    disk.is_full = False
    wait_until(lambda: not audit.is_failing)
    audit.close()
    verdict = verify(folder)
    assert verdict.missing_records > 0
    assert verdict.records + verdict.missing_records == MAX_WAITING + 5_000


def test_an_audit_that_cannot_be_begun_keeps_the_keeper_from_starting(tmp_path: Path) -> None:
    place = tmp_path / "audit"
    place.write_text("no folder")
    with pytest.raises(AuditUnavailable):
        Audit.open(place, AuditSettings())
    audit = Audit.open(place, AuditSettings(mode="best_effort"))
    audit.check()
    audit.close()


@pytest.mark.parametrize(
    ("sql", "masked"),
    [
        ("SELECT * FROM t WHERE name = 'Ada' AND age > 30", "SELECT * FROM t WHERE name = ? AND age > ?"),
        ("SELECT 'it''s', \"a'b\", $$x'y$$, $a$ $$ $a$", 'SELECT ?, "a\'b", ?, ?'),
        (r"SELECT 'a\', 'secret', E'b\' secret'", "SELECT ?, ?, ?"),
        ("SELECT 1.5e3, .5, 0xFF, 1_000, c1, t2.x3", "SELECT ?, ?, ?, ?, c1, t2.x3"),
        ("SELECT /* it's /* secret */ hidden */ 2 -- 'secret'\n, $1, $name", "SELECT  ? \n, $1, $name"),
        ("SELECT 'never ends", "SELECT ?"),
        ("SELECT /* never ends 'x'", "SELECT "),
        ("SELECT x'ff', nameé'x' ", "SELECT ?, nameé? "),
    ],
)
def test_masking_leaves_names_and_takes_values(sql: str, masked: str) -> None:
    assert without_literals(sql) == masked


@given(st.text(max_size=200), st.text(alphabet="abcXYZ0 \n", min_size=3, max_size=20))
def test_a_masked_statement_never_shows_a_literal(before: str, secret: str) -> None:
    marked = f"qq{secret}qq"
    clean = before.replace("'", "").replace('"', "").replace("$", "").replace("/*", "").replace("--", "")
    assert marked not in without_literals(f"{clean} '{marked}'")


def test_first_words() -> None:
    assert first_word(" -- x\n /* y */ (select 1)") == "SELECT"
    assert first_word("'") is None


def test_no_token_is_ever_recorded(folder: Path, opened: Opened) -> None:
    token, parts = new_token()
    secret = token.rsplit("_", 1)[1]
    audit = opened()
    audit.note(entry(f"SELECT '{token}'", request=f"DELETE /v1/keys/{token}", target=token))
    audit.close()
    kept = b"".join(path.read_bytes() for _, path in segments(folder)).decode()
    assert secret not in kept
    assert kept.count(parts.key_id) == 3
    assert without_tokens("nothing") == "nothing"


@pytest.mark.parametrize(("mode", "kept"), [("full", "SELECT 'Ada'"), ("masked", "SELECT ?"), ("none", None)])
def test_the_setting_says_what_of_the_sql_is_kept(folder: Path, opened: Opened, mode: str, kept: str | None) -> None:
    written(folder, opened(sql=mode), 0)
    audit = opened(sql=mode)
    audit.note(entry("SELECT 'Ada'"))
    audit.close()
    [record] = newest(folder, Filter(), 1)
    assert record.get("sql") == kept
    assert record["statement"] == "SELECT"


def test_long_sql_is_cut_and_says_so_and_broken_text_is_recorded(folder: Path, opened: Opened) -> None:
    audit = opened(max_sql_bytes=1000, sql="masked")
    audit.note(entry("SELECT '" + "secret" * 1000))
    audit.note(entry("SELECT \ud800"))
    audit.close()
    long, broken = newest(folder, Filter(), 2)
    assert long["sql"] == "SELECT ?"
    assert long["sql_cut_from"] == 6008
    assert broken["sql"] == "SELECT ?"
    verify(folder)
