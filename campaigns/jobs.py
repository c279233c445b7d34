"""The campaign of jobs: runs under kills of everything that carries them out.

    python -m campaigns.jobs [--short] [--rounds N] [--seed S] [--only runs|captures|schedules] [--work FOLDER]

`runs`: jobs are triggered while their keeper, their supervisors and their programs are killed (1,000 kills; short: 8): every run
that was told of ends and is done, never two of a job at a time, no process lives on. Positive controls: both are planted, and found.
`captures`: a source's changes are followed for ever while the run, its supervisor, the keeper, its writer and the source are killed (200
kills; short: 5): no reader sees half a transaction, and at the end source and database agree row by row. Controls as above.
`schedules`: jobs run by the clock, after each other and tell a webhook, while the keeper is killed and its settings file spoilt (200
kills; short: 3): the history has what ran, once; no success is without what comes after it; each failure and recovery is told in order.
A line of JSON per finding on stdout, narration on stderr. Exit code 0: nothing was violated.
"""

from __future__ import annotations

import sys

from campaigns import captures, runs, schedules
from campaigns.command_line import options_of, parser_of, play_chosen
from campaigns.running import Part

PARTS: dict[str, Part] = {"runs": runs.play, "captures": captures.play, "schedules": schedules.play}


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and play; the exit code."""
    parsed = parser_of("jobs", __doc__, PARTS, rounds="kills of each part").parse_args(arguments)
    return play_chosen(PARTS, parsed.only, options_of(parsed))


if __name__ == "__main__":
    sys.exit(main())
