"""The form of tokens, and that nothing but a token passes for one."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pondkeeper.access.tokens import digest_of, new_token, parse_token, token_in_header
from pondkeeper.errors import Unauthenticated


def test_new_tokens_parse_to_what_is_kept_of_them() -> None:
    """What is handed out is what is recognised."""
    text, kept = new_token()

    assert parse_token(text) == kept
    assert kept.digest == digest_of(text.rpartition("_")[2])


def test_tokens_are_all_different() -> None:
    """No two tokens share an id or a secret."""
    tokens = [new_token() for _ in range(1000)]

    assert len({token.key_id for _, token in tokens}) == len({token.digest for _, token in tokens}) == 1000


def test_the_repr_hides_the_secret() -> None:
    """A token that lands in a log line shows only its id."""
    text, kept = new_token()

    assert kept.key_id in repr(kept)
    assert kept.digest.hex() not in repr(kept)
    assert repr(kept.digest) not in repr(kept)
    assert text.rpartition("_")[2] not in repr(kept)


@given(st.one_of(st.text(max_size=80), st.from_regex(r"pk_[0-9a-zA-Z_]{0,60}", fullmatch=True)))
def test_any_text_is_a_token_or_none(text: str) -> None:
    """The parser never fails, and accepts only the one form."""
    token = parse_token(text)

    if token is not None:
        assert text == f"pk_{token.key_id}_{text[-43:]}"
        assert text.isascii()


@pytest.mark.parametrize("position", range(59))
def test_one_changed_character_is_another_token(position: int) -> None:
    """No character of a token is without meaning; a line end or a letter of another alphabet does not slip in."""
    text, kept = new_token()
    for other in ("\n", "٣", "_", "0" if text[position] != "0" else "1"):
        if text[position] != other:
            assert parse_token(text[:position] + other + text[position + 1 :]) != kept
    assert parse_token(text + "\n") is None


@pytest.mark.parametrize("header", ["Bearer pk_a", "bearer  pk_a ", b"BEARER pk_a"])
def test_header_gives_the_token(header: str | bytes) -> None:
    """The scheme is read in any case, and blanks around the token do not matter."""
    assert token_in_header(header) == "pk_a"


@pytest.mark.parametrize(
    "header", [None, "", b"", "pk_a", "Basic pk_a", "Bearer", "Bearer ", b"\xff\xfe", "Bearerpk_a"]
)
def test_header_without_token_is_refused_without_echo(header: str | bytes | None) -> None:
    """Any other header is refused, and the error does not repeat it."""
    with pytest.raises(Unauthenticated) as caught:
        token_in_header(header)

    assert "pk_a" not in str(caught.value.to_wire(with_private=True))


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60)))
def test_any_header_is_a_token_or_refused(header: str | bytes) -> None:
    """No header breaks the parser."""
    with contextlib.suppress(Unauthenticated):
        assert token_in_header(header)
