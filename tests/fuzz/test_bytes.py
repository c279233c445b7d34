"""Bytes that nobody meant: the frame readers, the key parser, the settings loader and the audit meet them by name."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pondkeeper.access.audit_reading import verify
from pondkeeper.access.grants import grants_of
from pondkeeper.access.masking import first_word, without_literals, without_tokens
from pondkeeper.access.tokens import digest_of, new_token, parse_token, token_in_header
from pondkeeper.errors import AuditBroken, InvalidRequest, PondkeeperError, SettingInvalid, Unauthenticated
from pondkeeper.server.hosts import Hosts
from pondkeeper.settings import Settings
from pondkeeper.workers.frames import FrameInvalid, Pipe
from pondkeeper.writer.wire import FrameReader, Kind, decode_answers, decode_hello, decode_writes, framed

MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TOML_WORDS = st.sampled_from(
    ["[server]", "[limits]", "[audit]", "port", "host", "=", "8420", '"x"', "[", "]", "#", "\n", "'", "roles", "1e999", "nan",
     "1979-05-27", '"""', "\\u0000", "timeout_s", "[[readers]]", "mode", "true", "0x10", "-1", ",", "{", "}", "."]
)  # fmt: skip


@MANY
@given(st.binary(max_size=400), st.integers(1, 300))
def test_a_pipeline_of_any_bytes_is_frames_or_refused(data: bytes, cut: int) -> None:
    """However they are cut into pieces, the same bytes give the same frames, or FrameInvalid and nothing else."""

    def frames(pieces: list[bytes]) -> list[tuple[Kind, bytes]] | None:
        reader, found = FrameReader(1000), []
        try:
            for piece in pieces:
                found += list(reader.feed(piece))
        except FrameInvalid:
            return None
        return found

    assert frames([data]) == frames([data[at : at + cut] for at in range(0, len(data), cut)])


@MANY
@given(st.lists(st.tuples(st.sampled_from(list(Kind)), st.binary(max_size=50)), max_size=5), st.integers(1, 20))
def test_whole_frames_arrive_whole(sent: list[tuple[Kind, bytes]], cut: int) -> None:
    data = b"".join(framed(kind, body) for kind, body in sent)
    reader = FrameReader(1000)
    found = [frame for at in range(0, len(data), cut) for frame in reader.feed(data[at : at + cut])]
    assert found == sent


@MANY
@given(st.binary(max_size=200) | JSON.map(msgspec.json.encode))
def test_what_is_in_a_frame_is_decoded_or_refused(body: bytes) -> None:
    for decode in (decode_hello, decode_writes, decode_answers):
        with contextlib.suppress(FrameInvalid):
            decode(body)


@MANY
@given(st.binary(max_size=300))
def test_a_child_that_reads_any_bytes_ends_in_order(data: bytes) -> None:
    """The pipe of a child: a frame, the end, or FrameInvalid."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        pipe = Pipe(theirs)
        with contextlib.suppress(FrameInvalid, PondkeeperError, EOFError):
            while pipe.receive() is not None:
                continue


@MANY
@given(st.text(max_size=100) | st.from_regex(r"pk_[0-9a-z]{10,14}_[0-9A-Za-z]{41,45}\n?", fullmatch=True))
def test_a_token_is_one_or_none(text: str) -> None:
    token = parse_token(text)
    if token is not None:
        prefix, key_id, secret = text.split("_")
        assert (prefix, len(key_id), len(secret)) == ("pk", 12, 43)
        assert token.digest == digest_of(secret)
    assert parse_token(new_token()[0]) is not None


@MANY
@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: f"Bearer {text}".encode("utf-8", "replace")))
def test_an_authorization_header_is_a_token_or_refused(header: bytes) -> None:
    with contextlib.suppress(Unauthenticated):
        assert token_in_header(header).strip()


@MANY
@given(st.binary(max_size=300) | st.lists(TOML_WORDS, max_size=30).map(lambda words: " ".join(words).encode()))
def test_a_settings_file_is_loaded_or_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "pondkeeper.toml"
    file.write_bytes(data)
    with contextlib.suppress(SettingInvalid):
        Settings.load(file, environment={})


@MANY
@given(st.dictionaries(
    st.sampled_from(["PONDKEEPER_SERVER_PORT", "PONDKEEPER_READERS_TIMEOUT_S", "PONDKEEPER_LIMITS_ROLES", "PONDKEEPER_AUDIT_MODE"])
    | st.text(max_size=20).map("PONDKEEPER_".__add__), st.text(max_size=40), max_size=3))  # fmt: skip
def test_an_environment_is_loaded_or_refused(environment: dict[str, str]) -> None:
    with contextlib.suppress(SettingInvalid):
        Settings.load(environment=environment)


@MANY
@given(st.lists(st.binary(max_size=80) | JSON.map(msgspec.json.encode), max_size=6))
def test_an_audit_of_any_bytes_is_broken_and_not_a_crash(tmp_path: Path, lines: list[bytes]) -> None:
    folder = tmp_path / "audit"
    folder.mkdir(exist_ok=True)
    (folder / "00000001.ndjson").write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(AuditBroken):
        verify(folder)


@MANY
@given(st.text(max_size=200))
def test_any_text_is_masked_and_cut(text: str) -> None:
    assert len(without_literals(text)) <= len(text) + text.count("'") + 8
    without_tokens(text)
    first_word(text)
    with contextlib.suppress(InvalidRequest):
        grants_of([text])


@MANY
@given(st.binary(max_size=100))
def test_any_host_is_ours_or_refused(host: bytes) -> None:
    with contextlib.suppress(PondkeeperError):
        Hosts("127.0.0.1", ["pond.example.com"]).check(host)
