"""The campaign of the archive: what was archived comes back as it was, or is refused, whatever happened to it.

    python -m campaigns.archive [--rounds N] [--budget S] [--seed S] [--short] [--only flips,…]

A line of JSON per round on stdout, narration on stderr. The seed is printed; the same seed draws the same plan. Exit
code 0: nothing was violated and every positive control was found; 1: otherwise, and the artefacts' folder is named.
"""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
from pathlib import Path

from campaigns import archivers, flips, points, restores
from campaigns.running import Options, Part, play

PARTS: dict[str, Part] = {
    "archivers": archivers.play,
    "flips": flips.play,
    "points": points.play,
    "restores": restores.play,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="script/campaign archive", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of each part (default: each part's own number)")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="begin no round of a part after that long")
    parser.add_argument("--seed", type=int, metavar="S", help="draw the same plan again (default: a new one, printed)")
    parser.add_argument("--short", action="store_true", help="the form that CI runs")
    parser.add_argument("--only", type=_parts, default=list(PARTS), metavar="PART,…", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--keep", action="store_true", help="keep the databases and logs also when all is well")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="where databases are made (default: the temporary folder)")
    return parser


def _parts(text: str) -> list[str]:
    chosen = text.split(",")
    if unknown := set(chosen) - set(PARTS):
        raise argparse.ArgumentTypeError(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return chosen


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and play; the exit code."""
    parsed = _parser().parse_args(arguments)
    seed = parsed.seed if parsed.seed is not None else secrets.randbelow(10**9)
    options = Options(
        seed,
        short=parsed.short,
        rounds=parsed.rounds,
        budget_s=parsed.budget,
        keep=parsed.keep,
        work=parsed.work,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Why: children and folders are cleaned up on the way out.
    return play({name: PARTS[name] for name in parsed.only}, options)


if __name__ == "__main__":
    sys.exit(main())
