"""Secrets in logs: what was named, whole lines of it, and what looks like one; and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pondkeeper.kinds.masking import Mask


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("postgres://sync:s3cr3t@db:5432/shop failed", "postgres://sync:***@db:5432/shop failed"),
        ("host=db password=s3cr3t dbname=shop", "host=db password=*** dbname=shop"),
        ("{'api_key': 's3cr3t', 'page': 2}", "{'api_key': '***', 'page': 2}"),
        ("Authorization: Bearer abcdef0123456789", "Authorization: Bearer ***"),
        ("key pk_abc_0123456789abcdef is gone", "key pk_*** is gone"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(line: str, shown: str) -> None:
    """Whoever forgot to name it."""
    assert Mask().masked(line) == shown


@pytest.mark.parametrize(
    "line",
    ["1 of 3 tokens used", "http://127.0.0.1:8420/v1/jobs", "12:03:04 loading main.orders", "SELECT secret_level FROM agents", "key=7"],
)
def test_what_is_none_stays(line: str) -> None:
    """A log in which everything is hidden helps nobody."""
    assert Mask().masked(line) == line


def test_every_line_of_a_secret_is_hidden() -> None:
    """A private key is many lines, and a program may print one of them."""
    mask = Mask()
    mask.hide("-----BEGIN KEY-----\nMIIEvQ\nIBADAN\n-----END KEY-----\n")
    assert mask.masked("it began with MIIEvQ, and IBADAN came") == "it began with ***, and *** came"


@given(st.lists(st.text(min_size=4, max_size=20, alphabet=st.characters(codec="utf-8", exclude_characters="*\r\n")), min_size=1, max_size=5), st.text(max_size=20))
def test_no_named_secret_is_ever_shown(secrets: list[str], between: str) -> None:
    """Also where one is a part of another."""
    mask = Mask()
    for secret in secrets:
        mask.hide(secret)
    shown = mask.masked(between.join(["", *secrets, ""]))
    assert not [secret for secret in secrets if secret.strip() and len(secret.strip()) >= 4 and secret.strip() in shown and secret.strip() not in between]
