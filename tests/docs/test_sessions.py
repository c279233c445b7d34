"""What the documents show is what happens: every console block is typed again, against a real keeper."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.docs.sessions import Document, Step, agrees, play
from tests.docs.subjects import played
from tests.support.keeper import REPOSITORY

NEEDS = {"dbt": Path(sys.executable).with_name("dbt").exists(), "curl": shutil.which("curl") is not None}


@pytest.mark.timeout(300)  # a document is a session of some dozens of commands, one of them a dbt build
@pytest.mark.parametrize("path", played(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_document_shows_what_happens(path: Path, tmp_path: Path) -> None:
    """Every command prints what the document says it prints. `script/record-docs` writes it anew."""
    document = Document.read(path)
    for program, is_here in NEEDS.items():
        if not is_here and any(re.search(rf"\b{program}\b", step.command) for step in document.steps):
            pytest.skip(f"{program} is not installed")
    wrong = []
    for step, output in play(document, tmp_path):
        if not agrees(step, output):
            said, came = "\n  ".join(step.output), "\n  ".join(output)
            wrong.append(
                f"{path.name}:{step.span[0]} $ {step.command}\n it says:\n  {said}\n and there came:\n  {came}"
            )
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize(
    ("said", "came", "is_true"),
    [
        (["3 rows, 12 ms"], ["3 rows, 0.4 s"], True),
        (["3 rows"], ["4 rows"], False),
        (["a", "…", "z"], ["a", "b", "c", "z"], True),
        (["a", "…", "z"], ["a", "z"], True),
        (["a", "…"], ["b"], False),
        (["path …/x"], ["path /tmp/1/x"], True),
        (["one"], ["one", "two"], False),
        (["one"], [], False),
        (["pid 12"], ["pid 99999"], True),
        (["12"], ["13"], True),
        (["12 a"], ["13 a"], False),
    ],
)
def test_what_varies_agrees_and_nothing_else(said: list[str], came: list[str], is_true: bool) -> None:
    """The comparison itself can fail: only times, sizes, ids and versions are free."""
    assert agrees(Step("pondkeeper query", said, (0, 0)), came) is is_true


def test_a_document_that_lies_is_found(tmp_path: Path) -> None:
    """Positive control: an output that is not what comes is reported with its line."""
    lie = tmp_path / "lie.md"
    lie.write_text("# Lie\n\n```console\n$ echo one\none\n$ echo two\nthree\n```\n")
    found = [agrees(step, output) for step, output in play(Document.read(lie), tmp_path / "session")]
    assert found == [True, False]


def test_the_documents_have_sessions() -> None:
    """README and tutorial are among what is played, so that a change of markers cannot switch everything off."""
    names = {path.name for path in played()}
    assert {"README.md", "first-warehouse.md"} <= names
    assert sum(len(Document.read(path).steps) for path in played()) >= 50
