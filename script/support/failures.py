"""What failed in several test runs, in few lines: each test's name, its assertion, and where that is.

    python script/support/failures.py FOLDER      FOLDER has NAME.xml (JUnit) and NAME.log of each run, NAME.code its exit code

For the end of CI's output, of which only the last part is kept. Exit code 1 when anything failed.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

MOST_TESTS = 25
MOST_LINES, FEW_LINES = 7, 2
FEW_TESTS = 6  # of more than these only the first lines are shown: some ten thousand characters are kept
MOST_CHARACTERS = 240
TAIL_LINES = 25
_PLACE = re.compile(r"^\S+\.py:\d+:( |$)")


def failures(report: Path) -> Iterator[tuple[str, list[str]]]:
    """Each failed test of a run with what there is to say of it."""
    for case in ET.parse(report).iter("testcase"):
        for kind in ("failure", "error"):
            for found in case.findall(kind):
                name = f"{case.get('file') or case.get('classname')}::{case.get('name')}"
                yield name if kind == "failure" else f"{name} ({found.get('message')})", told(found.text or "")


def told(text: str) -> list[str]:
    """The lines of a traceback that say why (pytest marks them with an E), and at the end where it began and ended."""
    lines = [line.rstrip() for line in text.splitlines()]
    why = [line for line in lines if line.startswith("E ") and line[1:].strip()] or [line for line in lines if line][-2:]
    places = [line for line in lines if _PLACE.match(line) and not line.startswith("/")]
    shown = why[:MOST_LINES] + places[:1] + places[-1:] * (len(places) > 1)
    return [line[:MOST_CHARACTERS] for line in shown]


def of_run(folder: Path, name: str) -> list[str]:
    """What there is to say of one run; nothing when it passed."""
    code = (folder / f"{name}.code").read_text().strip()
    if code == "0":
        return []
    report, lines = folder / f"{name}.xml", [f"--- {name}: exit code {code}"]
    found = list(failures(report)) if report.exists() and report.stat().st_size else []
    for test, why in found[:MOST_TESTS]:
        shown = why if len(found) <= FEW_TESTS else [*why[:FEW_LINES], why[-1]]
        lines += [f"FAILED {test}", *(f"    {line}" for line in shown)]
    if len(found) > MOST_TESTS:
        lines.append(f"… and {len(found) - MOST_TESTS} more")
    if not found:  # it broke off, or is no test run
        log = folder / f"{name}.log"
        said = log.read_text(errors="replace").splitlines() if log.exists() else []
        lines += [line[:MOST_CHARACTERS] for line in said[-TAIL_LINES:]]
    return lines


def main(folder: Path) -> int:
    """Print it; how it went is the exit code."""
    said = [of_run(folder, code.stem) for code in sorted(folder.glob("*.code"))]
    for lines in said:
        print("\n".join(lines), end="\n" if lines else "")
    return int(any(said))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
