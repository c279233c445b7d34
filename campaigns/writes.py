"""The campaign of writes: faults on purpose, again and again, and a count of what became of every write.

    python -m campaigns.writes [--rounds N] [--operations N] [--budget S] [--seed S] [--short] [--only kill,…] [--plan]

A line of JSON per round on stdout, narration on stderr. The seed is printed; the same seed draws the same plan. Exit
code 0: nothing was violated and every positive control was found; 1: otherwise, and the artefacts' folder is named.
"""

from __future__ import annotations

import sys

from campaigns import disk, errors, history, kill, recovery, torn
from campaigns.command_line import options_of, parser_of, play_chosen
from campaigns.running import Part

PARTS: dict[str, Part] = {
    "kill": kill.play,
    "recovery": recovery.play,
    "torn": torn.play,
    "disk": disk.play,
    "errors": errors.play,
    "history": history.play,
}


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and play; the exit code."""
    parser = parser_of("writes", __doc__, PARTS, short="the form that CI runs: 200 kills instead of 2,000")
    parser.add_argument("--operations", type=int, metavar="N", help="operations of the history (100,000; short: 2,400)")
    parser.add_argument("--plan", action="store_true", help="print the plan of the kills and do nothing")
    parsed = parser.parse_args(arguments)
    options = options_of(parsed, operations=parsed.operations)
    if parsed.plan:
        for planned in kill.plan(options):
            print(planned.to_json())
        return 0
    return play_chosen(PARTS, parsed.only, options)


if __name__ == "__main__":
    sys.exit(main())
