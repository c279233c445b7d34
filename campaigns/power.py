"""The campaign of power cuts: what a disk may hold when the power goes, rebuilt from recorded calls, and started from.

    python -m campaigns.power [--short] [--rounds N] [--seed S] [--only calls,repair] [--work FOLDER]

`calls`: strace records a keeper at its work (create, insert, load in bulk, update, checkpoint, publish, back up,
restore); `repair`: it records a repair. Of each record states are drawn: a cut anywhere, writes lost, reordered and
torn, names lost. Each must open by itself with every transaction that was acknowledged. Positive control: DuckDB alone
fails on some.
A line of JSON per finding on stdout, narration on stderr. Exit code 0: nothing was violated.
"""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
from pathlib import Path

from campaigns import powercalls
from campaigns.running import Options, Part, play

PARTS: dict[str, Part] = {"calls": powercalls.play_calls, "repair": powercalls.play_repair}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="script/campaign power", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, metavar="N", help="states of each part (default 20,000; short: 500)")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="begin no state of a part after that long")
    parser.add_argument("--seed", type=int, metavar="S", help="draw the same work and states again (default: a new one, printed)")
    parser.add_argument("--short", action="store_true", help="the form that CI runs")
    parser.add_argument("--only", type=_parts, default=list(PARTS), metavar="PART,…", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--keep", action="store_true", help="keep the folders also when all is well")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="where folders are made (default: the temporary folder)")
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
        seed, short=parsed.short, rounds=parsed.rounds, budget_s=parsed.budget, keep=parsed.keep, work=parsed.work
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Why: children and folders are cleaned up on the way out.
    return play({name: PARTS[name] for name in parsed.only}, options)


if __name__ == "__main__":
    sys.exit(main())
