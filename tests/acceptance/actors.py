"""The actors of the scene, each a process of its own:  python -m tests.acceptance.actors ROLE CONFIG

CONFIG is JSON: name, url, key, home, file, published, dbt_project, folder, seconds, pause_s, offset_s, report. At its
end an actor writes its report: latencies by what it did, and every error and wrong answer with its text.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import httpx

from pondkeeper.client.client import Client
from pondkeeper.errors import OutOfMemory, PondkeeperError, QueryTimedOut, ReadersBusy
from tests.acceptance import ledger
from tests.support.keeper import command_line, program_environment

RUNAWAY_TIMEOUT_S = 1.0
RUNAWAYS = {
    # Why hash: what the optimizer can settle from statistics alone is answered, and is no runaway.
    "cross join": "SELECT count(*) FROM flights a, flights b, flights c WHERE hash(a.tailnum, b.dest, c.tailnum) = 1",
    "endless recursion": "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
    "levenshtein": "SELECT levenshtein(repeat('a', 60000), repeat('b', 60000))",
    "list lambda": "SELECT list_sum(list_transform(range(200000000), lambda x: x * 2 + 1))",
}


class Actor:
    """What every actor has: its configuration, its end, its report."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.name: str = config["name"]
        self.ends_at = time.monotonic() + config["seconds"]
        self.random = random.Random(self.name)
        self.latencies_ms: dict[str, list[float]] = {}
        self.errors: list[str] = []
        self.wrong: list[str] = []
        self.notes: dict[str, Any] = {}

    def is_on(self) -> bool:
        return time.monotonic() < self.ends_at

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Record how long it took, when it succeeded; an error is recorded and the scene goes on."""
        began = time.monotonic()
        try:
            yield
        except Exception as error:  # Why: every failure is a line of the report, and the test fails by it.
            at = self.config["seconds"] - (self.ends_at - time.monotonic())
            code = getattr(error, "code", type(error).__name__)
            self.errors.append(f"{self.name} at {at:.1f} s, {what}: {code}: {error}")
            time.sleep(0.1)
        else:
            self.latencies_ms.setdefault(what, []).append((time.monotonic() - began) * 1000)

    def judge(self, faults: list[str], where: str) -> None:
        self.wrong.extend(f"{self.name}, {where}: {fault}" for fault in faults)

    def client(self) -> Client:
        return Client(self.config["url"], self.config["key"])

    def pause(self) -> None:
        time.sleep(self.random.uniform(0.5, 1.5) * self.config["pause_s"])

    def report(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "latencies_ms": self.latencies_ms,
            "errors": self.errors,
            "wrong": self.wrong,
            "notes": self.notes,
        }


def http_client(actor: Actor) -> None:
    """A dashboard: checks the ledger, the marts once they are there, and a table as Arrow; versions never go back."""
    seen = 0
    with actor.client() as client:
        while actor.is_on():
            what = actor.random.choices(("ledger", "marts", "arrow"), (6, 2, 1))[0]
            if what == "ledger":
                with actor.timed("query, ledger"):
                    answer = client.query(ledger.CHECK)
                    actor.judge(ledger.faults(next(answer.dicts())), f"version {answer.version}")
                    if answer.version < seen:
                        actor.wrong.append(f"{actor.name}: version {answer.version} after version {seen}")
                    seen = max(seen, answer.version)
            elif what == "marts":
                check_marts(actor, client)
            else:
                with actor.timed("query, 27,004 rows as Arrow"):
                    table = client.arrow("SELECT * FROM flights WHERE month = 1")
                    if table.num_rows != 27_004 or table.num_columns != 19:
                        actor.wrong.append(f"{actor.name}: {table.num_rows} rows of January instead of 27,004")
            actor.pause()


def check_marts(actor: Actor, client: Client) -> None:
    """Query what dbt built; before its first run there is nothing."""
    with actor.timed("query, look for marts"):
        found = client.query("SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'analytics'")
        actor.notes["marts"] = found.scalar()
    if actor.notes.get("marts") == 3:
        with actor.timed("query, marts through dbt's views"):
            answer = client.query(ledger.CHECK_MARTS)
            actor.judge(ledger.marts_faults(next(answer.dicts())), f"marts, version {answer.version}")


def writer(actor: Actor) -> None:
    """An application: writes for a second as fast as it is answered, then reads its own write, then rests two."""
    number = 0
    time.sleep(actor.config["offset_s"])
    with actor.client() as client:
        while actor.is_on():
            burst_ends_at = time.monotonic() + 1.0
            version = None
            while time.monotonic() < burst_ends_at:
                source, target = actor.random.sample(range(ledger.ACCOUNTS), 2)
                with actor.timed("execute, one transfer"):
                    outcome = client.execute(
                        ledger.transfer(actor.name, number + 1, source, target, actor.random.randint(1, 50))
                    )
                    number, version = number + 1, outcome.version
            if version is not None:
                with actor.timed("query, read your writes"):
                    sql = "SELECT max(number) FROM journal WHERE writer = ?"
                    answer = client.query(sql, [actor.name], at_least=version)
                    if answer.scalar() != number:
                        actor.wrong.append(f"{actor.name}: wrote {number} and reads {answer.scalar()}")
            time.sleep(2.0)
    actor.notes["acknowledged"] = number


def dbt(actor: Actor) -> None:
    """An analyst: builds the whole project through `pondkeeper run`, again and again."""
    folder = Path(actor.config["folder"])
    project = actor.config["dbt_project"]
    environment = program_environment(
        DBT_TARGET_PATH=str(folder / "target"), DBT_LOG_PATH=str(folder / "logs"), DBT_PROFILES_DIR=project
    )
    build = [str(Path(sys.executable).with_name("dbt")), "--no-use-colors", "build", "--project-dir", project]
    while actor.is_on():
        with actor.timed("pondkeeper run -- dbt build"):
            answer = subprocess.run(
                command_line("run", "--home", actor.config["home"], "--", *build),
                capture_output=True,
                text=True,
                env=environment,
                check=False,
            )
            if answer.returncode != 0 or "PASS=18" not in answer.stdout:
                raise RuntimeError(f"exit code {answer.returncode}: {answer.stdout[-1500:]}{answer.stderr[-1500:]}")
        time.sleep(actor.config["pause_s"])


def published_reader(actor: Actor) -> None:
    """A BI tool: opens `published.duckdb` itself; what it has open never changes under it."""
    path = actor.config["published"]
    while actor.is_on():
        with actor.timed("published.duckdb, open and check"), duckdb.connect(path, read_only=True) as connection:
            first = checked(actor, connection, "published.duckdb")
        with actor.timed("published.duckdb, held open"), duckdb.connect(path, read_only=True) as connection:
            first = checked(actor, connection, "published.duckdb")
            actor.pause()
            if checked(actor, connection, "published.duckdb, later") != first:
                actor.wrong.append("published.duckdb changed while it was open")
        actor.pause()


def checked(actor: Actor, connection: duckdb.DuckDBPyConnection, where: str) -> dict[str, Any]:
    """The answer to CHECK over a connection of our own, judged."""
    row = connection.execute(ledger.CHECK).fetchone()
    assert row is not None
    answer = dict(zip(ledger.COLUMNS, row, strict=True))
    actor.judge(ledger.faults(answer), where)
    return answer


def plain_script(actor: Actor) -> None:
    """A script that knows nothing of the keeper: tries to open the file for five seconds, writes, and closes it."""
    number = 0
    while actor.is_on():
        with actor.timed("plain script, open and write"):
            connection = patient_connect(actor.config["file"], 5.0)
            try:
                checked(actor, connection, "the file itself")
                connection.begin()
                for sql, parameters in ledger.transfer(actor.name, number + 1, 1, 2, 1):
                    connection.execute(sql, parameters)
                connection.commit()
                number += 1
            finally:
                connection.close()
        actor.pause()
    actor.notes["acknowledged"] = number


def patient_connect(path: str, patience_s: float) -> duckdb.DuckDBPyConnection:
    """What people write who have met the lock error before: try again for a while."""
    give_up_at = time.monotonic() + patience_s
    while True:
        try:
            return duckdb.connect(path)
        except duckdb.IOException as error:
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"{error} [held by {holder_named_in(str(error))}]") from error
            time.sleep(0.05)


def holder_named_in(message: str) -> str:
    """The process name of the PID in DuckDB's error: dbt, or one of the keeper's children."""
    found = re.search(r"PID (\d+)", message)
    comm = Path(f"/proc/{found[1]}/comm") if found else None
    return comm.read_text().strip() if comm is not None and comm.exists() else "one that is gone"


def runaway(actor: Actor) -> None:
    """Somebody's mistake, every five seconds: each must be stopped at its deadline, and cost nobody else anything."""
    kinds = list(RUNAWAYS)
    with actor.client() as client:
        while actor.is_on():
            kind = kinds[actor.notes.get("stopped", 0) % len(kinds)]
            with actor.timed(f"runaway, {kind}"):
                try:
                    client.query(RUNAWAYS[kind], timeout_s=RUNAWAY_TIMEOUT_S)
                except (QueryTimedOut, OutOfMemory):
                    actor.notes["stopped"] = actor.notes.get("stopped", 0) + 1
                except ReadersBusy:  # its second was over before a reader was free: refused, which costs nobody else anything
                    actor.notes["refused"] = actor.notes.get("refused", 0) + 1
                else:
                    raise AssertionError("it was answered")
            time.sleep(max(0.0, min(5.0, actor.ends_at - time.monotonic())))


def health(actor: Actor) -> None:
    """A load balancer: asks /health/live twenty times a second, with a connection kept open."""
    with httpx.Client(base_url=actor.config["url"], timeout=10.0, trust_env=False) as http:
        while actor.is_on():
            with actor.timed("/health/live"):
                http.get("/health/live").raise_for_status()
            time.sleep(0.05)


ROLES: dict[str, Callable[[Actor], None]] = {
    role.__name__: role for role in (http_client, writer, dbt, published_reader, plain_script, runaway, health)
}


def main() -> None:
    """Play one role to its end and write its report."""
    config = json.loads(sys.argv[2])
    actor = Actor(config)
    try:
        ROLES[sys.argv[1]](actor)
    except (PondkeeperError, duckdb.Error, OSError) as error:
        actor.errors.append(f"{actor.name} gave up: {type(error).__name__}: {error}")
    unfinished = Path(config["report"]).with_suffix(".tmp")
    unfinished.write_text(json.dumps(actor.report()))
    unfinished.replace(config["report"])


if __name__ == "__main__":
    main()
