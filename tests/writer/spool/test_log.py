"""The bytes of the log: what is whole is read back, a torn tail is cut off, damage before it is seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pondkeeper.writer.spool.log import Damage, Draft, Entry, Header, encode_group, entries_of, new_segment_head, scan
from pondkeeper.writer.spool.recovery import Found, damaged_files, recover


def header(number: int, **what: object) -> Header:
    return Header(table=f"t{number}", format="ndjson", digest=f"d{number}", accepted_at=float(number), **what)  # type: ignore[arg-type]


def segment(*groups: list[bytes], first_place: int = 0) -> tuple[bytes, list[int]]:
    """A segment of these bodies, and where each group ends in it."""
    segment_id, data = new_segment_head(first_place)
    place, ends = first_place, []
    for number, bodies in enumerate(groups):
        drafts = [Draft.of(header(place + i), body) for i, body in enumerate(bodies)]
        encoded, group = encode_group(segment_id, number, place, drafts)
        data, place = data + encoded, group.next_place
        ends.append(len(data))
    return data, ends


def bodies(data: bytes) -> list[bytes]:
    """What a scan finds, in order."""
    scanned = scan(data)
    assert scanned is not None
    return [entry.body for group in scanned.groups for entry in entries_of(data, group)]


@given(st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=5), max_size=5))
def test_what_is_written_is_read_back(groups: list[list[bytes]]) -> None:
    """Any bodies, in order, with their headers and places."""
    data, _ = segment(*groups, first_place=7)
    scanned = scan(data)
    assert scanned is not None
    found = [entry for group in scanned.groups for entry in entries_of(data, group)]
    wanted = [body for group in groups for body in group]
    assert found == [Entry(place, header(place), body) for place, body in enumerate(wanted, 7)]
    assert (scanned.torn_bytes, scanned.damage, scanned.next_place) == (0, [], 7 + len(wanted))


def test_a_segment_cut_at_any_byte_has_the_groups_before_the_cut() -> None:
    """Every length that a crash may leave: whole groups before it are there, nothing of the torn one is."""
    data, ends = segment([b"a", b"bb"], [b"c" * 100], [b"d", b"", b"e"])
    wanted = [b"a", b"bb", b"c" * 100, b"d", b"", b"e"]
    upto = {0: 0, ends[0]: 2, ends[1]: 3, ends[2]: 6}
    for length in range(len(data) + 1):
        scanned = scan(data[:length])
        if scanned is None:
            assert length < len(new_segment_head(0)[1])
            continue
        count = max(entries for end, entries in upto.items() if end <= length)
        assert bodies(data[:length]) == wanted[:count]
        assert not scanned.damage


def test_a_tail_of_zeros_is_torn_and_no_damage() -> None:
    """What a file system may show of a write that never reached the disk."""
    data, ends = segment([b"a"], [b"b" * 500])
    for keep in range(ends[0], ends[1]):
        scanned = scan(data[:keep] + bytes(ends[1] - keep) + bytes(1000))
        assert scanned is not None
        assert len(scanned.groups) == 1
        assert not scanned.damage


def test_every_damaged_byte_before_the_last_group_is_seen() -> None:
    """The group is missing, those before and behind it are there, and the damage says how many entries are lost."""
    data, ends = segment([b"a"], [b"b", b"bb"], [b"c"])
    for offset in range(ends[0], ends[1]):
        broken = bytearray(data)
        broken[offset] ^= 0x40
        scanned = scan(bytes(broken))
        assert scanned is not None
        assert bodies(bytes(broken)) == [b"a", b"c"]
        assert scanned.damage == [Damage(ends[0], groups=1, entries=2)]


def test_a_body_that_looks_like_a_group_is_a_body() -> None:
    """Somebody sends the bytes of another segment, torn: nothing of them is taken for an entry."""
    other, _ = segment([b"x"], [b"y"])
    data, ends = segment([other, other[50:]], [other])
    assert bodies(data) == [other, other[50:], other]
    assert bodies(data[: ends[1] - 1]) == [other, other[50:]]


# Recovery


def written(folder: Path, *segments: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for number, data in enumerate(segments):
        (folder / f"{number:016d}.log").write_bytes(data)
    return folder


def recovered(folder: Path, cursor: int = 0) -> Found:
    """Recovery, twice: the second one finds the same."""
    recover(folder, cursor, 0)
    return recover(folder, cursor, 0)


def found_bodies(found: Found) -> list[bytes]:
    places = range(found.segments[0].first_place, found.next_place) if found.segments else range(0)
    entries = []
    for each in found.segments:
        piece = each.piece(each.first_place, 10**9)
        assert piece is not None
        entries += list(piece.entries())
    assert {entry.place for entry in entries} <= set(places)
    return [entry.body for entry in entries]


def test_recovery_cuts_the_tail_off_at_every_byte(tmp_path: Path) -> None:
    """The file ends at its last whole group afterwards; a file without any is gone."""
    data, ends = segment([b"a", b"bb"], [b"c"])
    for length in range(len(data)):
        folder = written(tmp_path / str(length), data[:length])
        found = recovered(folder)
        wanted = [b"a", b"bb"] if length >= ends[0] else []
        assert found_bodies(found) == wanted
        assert found.waiting == found.next_place == len(wanted)
        assert [path.stat().st_size for path in folder.iterdir()] == ([ends[0]] if wanted else [])
        assert damaged_files(folder) == []


def test_a_tail_before_a_later_segment_is_damage(tmp_path: Path) -> None:
    """The later segment was begun when all of the earlier one was durable, so what is torn there was promised."""
    first, _ = segment([b"a"], [b"b"])
    second, _ = segment([b"c"], first_place=2)
    folder = written(tmp_path / "log", first[:-1], second)
    found = recovered(folder)
    assert found_bodies(found) == [b"a", b"c"]
    assert [each.is_damaged for each in found.segments] == [True, False]


def test_a_segment_with_a_damaged_head_is_set_aside(tmp_path: Path) -> None:
    """Nothing in it can be trusted; it is kept for whoever looks into it, and named."""
    first, _ = segment([b"a"])
    second, _ = segment([b"b"], first_place=1)
    folder = written(tmp_path / "log", b"\0" + first[1:], second)
    assert found_bodies(recovered(folder)) == [b"b"]
    assert [path.name for path in damaged_files(folder)] == ["0000000000000000.damaged"]


@pytest.mark.parametrize("cursor", range(5))
def test_entries_before_the_cursor_do_not_wait(tmp_path: Path, cursor: int) -> None:
    """What was applied stays in its segment until all of that is, and is not counted."""
    data, _ = segment([b"a", b"b"], [b"c", b"d"])
    assert recovered(written(tmp_path / "log", data), cursor).waiting == 4 - cursor
