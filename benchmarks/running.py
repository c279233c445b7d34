"""The frame of every benchmark: options, a bound in time, narration on stderr, the table or JSON on stdout."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from benchmarks.report import Figure, as_json, as_table

NOT_MET = 1
CUT_SHORT = 3


class BudgetSpent(BaseException):
    """The benchmark's time is up. Why BaseException: no `except Exception` on the way may swallow it."""


@dataclass
class Run:
    """One run of one benchmark: its options, and the figures that it has so far."""

    short: bool
    work: Path
    budget_s: float
    figures: list[Figure] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", file=sys.stderr, flush=True)

    def add(self, *figures: Figure) -> None:
        self.figures.extend(figures)

    @property
    def left_s(self) -> float:
        return self.budget_s - (time.monotonic() - self.started)


def default_work() -> Path:
    """Where generated databases are kept between runs."""
    named = os.environ.get("BENCHMARKS_WORK")
    return Path(named) if named else Path(tempfile.gettempdir()) / "pondkeeper-benchmarks"


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--short", action="store_true", help="smaller data and fewer rounds: a look, not a figure")
    parser.add_argument("--check", action="store_true", help=f"exit with {NOT_MET} when a bar is not met")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="stop after that long (default: see README)")
    parser.add_argument(
        "--work", type=Path, default=default_work(), help="folder for generated data (default: %(default)s)"
    )
    return parser


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise BudgetSpent


def run(name: str, description: str, measure: Callable[[Run], None], *, budget_s: float, short_budget_s: float) -> int:
    """Parse the command line, measure within the budget, print what was measured; the exit code."""
    options = _parser(name, description).parse_args()
    budget = options.budget or (short_budget_s if options.short else budget_s)
    options.work.mkdir(parents=True, exist_ok=True)
    this = Run(short=options.short, work=options.work.resolve(), budget_s=budget)
    complete = _measure_within_budget(this, measure)
    about = {"short": this.short, "complete": complete, "seconds": round(time.monotonic() - this.started, 1)}
    print(as_json(name, this.figures, **about) if options.json else as_table(this.figures))
    if not complete:
        this.say(f"cut short after its budget of {budget:g} s")
        return CUT_SHORT
    return NOT_MET if options.check and any(figure.met is False for figure in this.figures) else 0


def _measure_within_budget(this: Run, measure: Callable[[Run], None]) -> bool:
    signal.signal(signal.SIGALRM, _stop)
    signal.signal(signal.SIGTERM, _stop)
    signal.setitimer(signal.ITIMER_REAL, this.budget_s)
    try:
        measure(this)
    except (BudgetSpent, KeyboardInterrupt):
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return True
