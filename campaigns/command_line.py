"""The command line that all campaigns have in common."""

from __future__ import annotations

import argparse
import secrets
import signal
from collections.abc import Mapping
from pathlib import Path

from campaigns.running import Options, Part, play

SHORT = "the form that CI runs"
ROUNDS = "rounds of each part (default: each part's own number)"


def parser_of(
    name: str, doc: str | None, parts: Mapping[str, Part], *, rounds: str = ROUNDS, short: str = SHORT
) -> argparse.ArgumentParser:
    """The options of `script/campaign NAME`; `doc` is the docstring of its module."""

    def chosen(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(parts):
            raise argparse.ArgumentTypeError(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
        return names

    parser = argparse.ArgumentParser(prog=f"script/campaign {name}", description=doc.splitlines()[0] if doc else "")
    parser.add_argument("--rounds", type=int, metavar="N", help=rounds)
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="begin no round of a part after that long")
    parser.add_argument("--seed", type=int, metavar="S", help="draw the same plan again (default: a new one, printed)")
    parser.add_argument("--short", action="store_true", help=short)
    parser.add_argument("--only", type=chosen, default=list(parts), metavar="PART,…", help=f"of {', '.join(parts)}")
    parser.add_argument("--keep", action="store_true", help="keep the databases and logs also when all is well")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="where databases are made (default: the temporary folder)")
    return parser


def options_of(parsed: argparse.Namespace, *, operations: int | None = None) -> Options:
    """What was asked for, with a seed in any case."""
    seed = parsed.seed if parsed.seed is not None else secrets.randbelow(10**9)
    return Options(
        seed,
        short=parsed.short,
        rounds=parsed.rounds,
        operations=operations,
        budget_s=parsed.budget,
        keep=parsed.keep,
        work=parsed.work,
    )


def play_chosen(parts: Mapping[str, Part], chosen: list[str], options: Options) -> int:
    """Play these parts; the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Why: children and folders are cleaned up on the way out.
    return play({name: parts[name] for name in chosen}, options)
