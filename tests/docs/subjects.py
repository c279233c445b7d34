"""The documents that are tested."""

from __future__ import annotations

from pathlib import Path

from tests.docs.sessions import Document
from tests.support.keeper import REPOSITORY

DOCS = REPOSITORY / "docs"


def documents() -> list[Path]:
    """Every document of the product, for people who use it."""
    return [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]


def played() -> list[Path]:
    """The documents with something to type: README, tutorial and how-to. The reference shows, and is tested elsewhere."""
    candidates = [REPOSITORY / "README.md", *sorted(DOCS.glob("tutorial/*.md")), *sorted(DOCS.glob("how-to/*.md"))]
    return [path for path in candidates if Document.read(path).steps]
