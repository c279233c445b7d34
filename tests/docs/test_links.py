"""Links in the documents lead somewhere, and nothing of the place where they were written is left in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.subjects import documents
from tests.docs.test_reference import anchors
from tests.support.keeper import REPOSITORY

ROOMS = sorted((REPOSITORY / "src").rglob("README.md"))
OTHERS = [*(REPOSITORY / "examples").glob("**/README.md"), *(REPOSITORY / "benchmarks").glob("README.md")]
each_document = pytest.mark.parametrize(
    "path", [*documents(), *ROOMS, *OTHERS], ids=lambda path: str(path.relative_to(REPOSITORY))
)


@each_document
def test_links_lead_somewhere(path: Path) -> None:
    """The file that a link names exists, and the heading in it too."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), target


@each_document
def test_nothing_of_the_workplace_is_left(path: Path) -> None:
    """No path of the machine on which it was written, and no host but examples and the reader's own."""
    text = path.read_text()
    assert re.findall(r"/(?:work|tmp|root)/", text) == []
    hosts = set(re.findall(r"https?://([^/\s`'\")>:]+)", text))
    allowed = re.compile(
        r"(127\.0\.0\.1|localhost|0\.0\.0\.0|db|[\w.-]*example(\.\w+)?|duckdb\.org|keepachangelog\.com|semver\.org|diataxis\.fr|pond\.internal|…)$"
    )
    assert [host for host in hosts if not allowed.match(host)] == []


def test_every_document_is_reached_from_the_index() -> None:
    """docs/README.md leads to every page, so that nobody has to know its name."""
    index = REPOSITORY / "docs" / "README.md"
    linked = {
        (index.parent / target.partition("#")[0]).resolve()
        for target in re.findall(r"\]\(([^)\s]+)\)", index.read_text())
    }
    pages = {path for path in documents() if path.is_relative_to(index.parent) and path != index}
    assert pages - linked == set()
