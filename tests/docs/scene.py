"""Play the acceptance scene and put the table that it prints into the README, between its two marks."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date

from tests.support.keeper import REPOSITORY, program_environment

SCENE = "tests/acceptance/test_scene.py::test_the_scene_plays"
BEGIN, END = "<!-- scene: written by `script/record-docs --scene` -->\n", "<!-- end of scene -->"


def main() -> None:
    """Play, and write what came; a scene that failed is not written."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", SCENE],
        cwd=REPOSITORY, env=program_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"^(\d+(?:\.\d+)?) seconds of everything at once\n\n((?:\|.*\n)+)", done.stdout, re.MULTILINE)
    if done.returncode != 0 or found is None:
        sys.exit(done.stdout[-4000:] + done.stderr[-2000:])
    readme = REPOSITORY / "README.md"
    text = readme.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    told = f"{found[1]} seconds on a machine with two cores, clients included, {date.today():%B %Y}: no error, no wrong answer.\n\n"  # noqa: DTZ011
    readme.write_text(head + BEGIN + told + found[2] + "\n" + END + tail)


if __name__ == "__main__":
    main()
