"""Where each kind of object lies in a store."""

from __future__ import annotations

IDENTITY = "archive.json"
BLOCKS = "blocks/"
PAGES = "pages/"
DATABASES = "databases/"


def block_name(digest: bytes) -> str:
    return _spread(BLOCKS, digest)


def page_name(digest: bytes) -> str:
    return _spread(PAGES, digest)


def _spread(prefix: str, digest: bytes) -> str:
    text = digest.hex()
    return f"{prefix}{text[:2]}/{text}"
