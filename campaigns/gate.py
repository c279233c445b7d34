"""The campaign of the gate: whoever sends SQL tries to get out of the database, by every way that we know.

    python -m campaigns.gate [--short] [--only doors,fence] [--keep]

`doors`: every vector through every door and role of a keeper. `fence`: the same vectors in a DuckDB whose own locks are
open, behind the fence of each kind of child; without a fence they must get out, else this campaign proves nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import structlog

from campaigns import escaping, fenced
from campaigns.running import Options, Part, play

PARTS: dict[str, Part] = {"doors": escaping.play, "fence": fenced.play}


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and play; the exit code."""
    parser = argparse.ArgumentParser(
        prog="script/campaign gate", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--short", action="store_true", help="a share of the vectors through each door")
    parser.add_argument("--only", choices=list(PARTS), action="append", help="this part alone")
    parser.add_argument("--keep", action="store_true", help="keep the folders also when all is well")
    parser.add_argument(
        "--work", type=Path, metavar="FOLDER", help="where folders are made (default: the temporary folder)"
    )
    parsed = parser.parse_args(arguments)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # Why: stdout is for lines of JSON
    options = Options(0, short=parsed.short, keep=parsed.keep, work=parsed.work)
    return play({name: PARTS[name] for name in parsed.only or PARTS}, options)


if __name__ == "__main__":
    sys.exit(main())
