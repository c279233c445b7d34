"""docs/reference: every error, exit code and setting has its heading, and what it says is what the code says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pondkeeper import errors
from pondkeeper.errors import PondkeeperError, all_errors
from pondkeeper.settings import leaves

REPOSITORY = Path(__file__).parents[2]
REFERENCE = REPOSITORY / "docs" / "reference"


def headings(page: str) -> set[str]:
    """The headings of a page."""
    return set(re.findall(r"^##+ (.+)$", (REFERENCE / page).read_text(), re.MULTILINE))


def generate(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "script" / "generate-docs"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_reference_is_fresh() -> None:
    """Who changes a setting or an error commits the pages with it."""
    answer = generate(REPOSITORY, "--check")

    assert answer.returncode == 0, answer.stderr


def test_a_stale_page_is_named_and_written_anew(tmp_path: Path) -> None:
    """The check can fail: on a changed error in a copy of the repository it names the pages, and without --check mends them."""
    for part in ("src/pondkeeper", "script", "docs/reference"):
        shutil.copytree(REPOSITORY / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    changed = tmp_path / "src/pondkeeper/errors.py"
    changed.write_text(changed.read_text().replace("The disk is full.", "The disk is very full."))

    stale = generate(tmp_path, "--check")

    assert stale.returncode != 0
    assert "docs/reference/errors.md" in stale.stderr
    assert generate(tmp_path).returncode == 0
    assert generate(tmp_path, "--check").returncode == 0
    assert "very full" in (tmp_path / "docs/reference/errors.md").read_text()


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.code)
def test_every_error_has_a_heading_and_says_what_to_do(error: type[PondkeeperError]) -> None:
    """An error in an answer can be looked up by its code; it says what happened and what to do, and has a status."""
    assert error.code in headings("errors.md")
    assert (error.__doc__ or "").strip().splitlines()[0].endswith(".")
    assert error.default_remedy.endswith((".", "`"))
    assert 400 <= error.http_status <= 599
    assert str(error.exit_code) in headings("exit-codes.md")


def test_error_codes_are_unique() -> None:
    """One code, one error: `from_wire` gives back the class that was sent."""

    ours = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PondkeeperError)]

    assert len(ours) > 20
    assert {kind.code: kind for kind in ours} == {kind.code: kind for kind in all_errors()}
    assert len({kind.code for kind in ours}) == len(ours)


def test_every_setting_has_a_heading() -> None:
    """A setting can be looked up by its name."""
    assert set(leaves()) <= headings("settings.md")


def test_settings_named_by_errors_exist() -> None:
    """A remedy that names a setting names one that there is."""
    sections = {name.partition(".")[0] for name in leaves()}
    named = {
        name
        for error in all_errors()
        for name in re.findall(r"`([a-z]+\.[a-z_]+)`", error.default_remedy)
        if name.partition(".")[0] in sections
    }

    assert named
    assert named <= set(leaves())
