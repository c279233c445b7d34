"""Runs of jobs in words and tables."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from pondkeeper.cli.output import one_line, print_table
from pondkeeper.cli.quantities import age_s, show_age, show_bytes, show_seconds
from pondkeeper.jobs.status import FINAL, Phase

Status = dict[str, Any]
WORDS: Final = {Phase.WAITING.value: "waits for the lease"}
MAX_TABLES: Final = 30
OF_THE_ROOM: Final = frozenset({"failed_attempts", "lost_at"})  # not of its kind


def print_runs(runs: Iterable[Status]) -> None:
    """A line for each run."""
    columns = ("run", "job", "phase", "age", "took", "rows", "written", "held", "what")
    print_table(columns, map(_row, runs), numbers=(3, 4, 5, 6, 7), whole=range(8))


def _row(run: Status) -> tuple[Any, ...]:
    begun = show_age(run["started_at"] or run["created_at"])
    written = show_bytes(run["size_bytes"]) if run["size_bytes"] else ""
    held = show_seconds(run["held_s"]) if run["held_s"] else ""
    rows = f"{run['rows']:,}" if run["rows"] else ""
    return run["run_id"], run["job"], phase_of(run), begun, show_seconds(took_s(run)), rows, written, held, what(run)


def phase_of(run: Status) -> str:
    """Its phase in a word or some; `lost` of one that nobody carries out."""
    if not run.get("is_alive", True) and run["phase"] not in FINAL and run["phase"] != Phase.QUEUED:
        return "lost"
    return WORDS.get(run["phase"], str(run["phase"]))


def took_s(run: Status) -> float | None:
    """From its beginning to its end, or until now; None before."""
    if run["started_at"] is None:
        return None
    if run["finished_at"] is None:
        return age_s(run["started_at"])
    return (datetime.fromisoformat(run["finished_at"]) - datetime.fromisoformat(run["started_at"])).total_seconds()


def what(run: Status) -> str:
    """What else is to be said of it: why it failed, how far it is, for whom it waits."""
    if error := run["error"]:
        said = f"{' '.join(str(error['message']).split())} [{error['code']}]"
        return said if run["phase"] in FINAL else f"attempt {run['attempt']} after: {said}"
    if run["phase"] in FINAL:
        return ""
    return ", ".join(filter(None, (run["message"], progress_of(run), holder_of(run), _later(run))))


def progress_of(run: Status) -> str:
    """`1,200 of 5,000 rows, 310/s, 12 s left`; nothing of one that has not said how far it is."""
    done, total, unit = run["done"], run["total"], run["unit"]
    if not done and not total:
        return ""
    parts = [f"{amount(done, unit)} of {amount(total, unit)}" if total is not None else amount(done, unit)]
    parts[0] += "" if unit == "bytes" else f" {unit}"
    if rate := run["rate_per_s"]:
        parts.append(f"{show_bytes(rate)}/s" if unit == "bytes" else f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
    if run["eta_s"] is not None:
        parts.append(f"{show_seconds(run['eta_s'])} left")
    return ", ".join(parts)


def amount(count: float, unit: str) -> str:
    """So much of a unit, without its name where bytes say it themselves."""
    return show_bytes(count) if unit == "bytes" else f"{count:,.0f}"


def holder_of(run: Status) -> str:
    """For whom it waits; nothing when it does not."""
    lease = run["lease"] or {}
    parts = []
    if holder := lease.get("holder"):
        parts.append(f"{holder} has had it for {show_age(lease['since'])}" if lease.get("since") else f"{holder} has it")
        parts[0] += f", for: {lease['why']}" if lease.get("why") else ""
    if lease.get("position"):
        parts.append(f"{lease['position']} before it")
    return "; ".join(parts)


def _later(run: Status) -> str:
    if run["phase"] != Phase.QUEUED or run["not_before"] is None:
        return ""
    wait_s = -(datetime.now().astimezone() - datetime.fromisoformat(run["not_before"])).total_seconds()
    return f"in {show_seconds(wait_s)}" if wait_s > 0 else ""


def print_run(run: Status, echo: Any) -> None:
    """Everything that a person wants to know of one run."""
    attempts = f", attempt {run['attempt']}" if run["attempt"] > 1 else ""
    by = f" by {run['by']}" if run["by"] else ""
    echo(f"run {run['run_id']} of {run['job']} ({run['kind']}{', ' + run['database'] if run['database'] else ''}): {phase_of(run)}{attempts}")
    echo(f"  asked for {show_age(run['created_at'])} ago ({run['trigger']}{by})")
    if run["started_at"]:
        ended = f", ended {show_age(run['finished_at'])} ago" if run["finished_at"] else ""
        echo(f"  took {show_seconds(took_s(run))}{ended}{_exit(run)}")
    if said := what({**run, "error": None}):
        echo(f"  {said}")
    if run["versions"]:
        echo(f"  in version {run['versions'][-1]}; held the file for {show_seconds(run['held_s'])}")
    if error := run["error"]:
        echo(f"  {' '.join(str(error['message']).split())} [{error['code']}]\n    {error.get('remedy', '')}")
    if tables := run["tables"]:
        rows = [(name, f"{each['rows']:,}", show_bytes(each["size_bytes"])) for name, each in list(tables.items())[:MAX_TABLES]]
        print_table(("table", "rows", "size"), rows, numbers=(1, 2), whole=range(3))
        if len(tables) > MAX_TABLES:
            echo(f"  and {len(tables) - MAX_TABLES} more tables")
    _print_details(run["details"], echo)


def _print_details(details: dict[str, Any], echo: Any) -> None:
    """What its kind has to tell: plain values in lines, lists of things as tables."""
    for failed in details.get("failed_attempts") or ():
        echo(f"  attempt {failed['attempt']}: {' '.join(str(failed['message']).split())} [{failed['code']}]")
    for name, value in details.items():
        if name in OF_THE_ROOM or value in (None, "", [], {}):
            continue
        if isinstance(value, list) and all(isinstance(each, dict) for each in value):
            columns = tuple(dict.fromkeys(key for each in value for key in each))
            print_table(columns, [[each.get(column) for column in columns] for each in value[:MAX_TABLES]])
            if len(value) > MAX_TABLES:
                echo(f"  and {len(value) - MAX_TABLES} more {name}")
        else:
            echo(f"  {name}: {one_line(_plain(value))}")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value[:MAX_TABLES])) + (", …" if len(value) > MAX_TABLES else "")
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _exit(run: Status) -> str:
    return f", exit code {run['exit_code']}" if run["exit_code"] is not None else ""
