"""Change data capture under kills: of the run, of its supervisor, of the keeper, of its writer, and of the source.

What must hold: every version that a reader sees is a state of the source between two of its transactions (money is moved between
two tables, and none is ever lost), and at the end source and database agree row by row, also where no key names a row.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from campaigns.running import Stage
from pondkeeper.client.client import Client
from pondkeeper.errors import PondkeeperError
from pondkeeper.files.paths import Home, default_home
from pondkeeper.jobs.folders import read_status, runs_of
from pondkeeper.jobs.orphans import end_orphans
from pondkeeper.jobs.status import RunStatus
from tests.support.keeper import KeeperProcess, keepers, wait_until
from tests.support.postgres import PostgresServer
from tests.support.processes import tree

LONG_ROUNDS, SHORT_ROUNDS = 200, 5
ACCOUNTS, MONEY = 40, 1000
SETTLED_S = 120.0
TABLES = ("savings", "current", "journal")
SHAPE = f"""
CREATE TABLE savings (id int PRIMARY KEY, amount int NOT NULL, note text);
CREATE TABLE current (id int PRIMARY KEY, amount int NOT NULL);
CREATE TABLE journal (n int, note text); ALTER TABLE journal REPLICA IDENTITY FULL;
ALTER TABLE savings ALTER COLUMN note SET STORAGE EXTERNAL;
INSERT INTO savings SELECT g, {MONEY}, repeat('note ' || g, 600) FROM generate_series(1, {ACCOUNTS}) g;
INSERT INTO current SELECT g, {MONEY} FROM generate_series(1, {ACCOUNTS}) g
"""
TOTAL = "SELECT (SELECT sum(amount) FROM savings) + (SELECT sum(amount) FROM current)"
JOB = """
[jobs.bank]
kind = "postgres"
database = "bank"
source = "{source}"
mode = "cdc"
tables = ["public.*"]
schedule = "always"
flush_every_s = 0.1
wait_for_source_s = 120
when_slot_lost = "fail"
retries = 1000
retry_wait_s = 0
"""


@dataclass
class Bank:
    """A source whose money is moved around for as long as it runs, and what readers of the copy saw meanwhile."""

    server: PostgresServer
    chance: random.Random
    stop: threading.Event = field(default_factory=threading.Event)
    moves: int = 0
    looks: int = 0
    wrong: list[str] = field(default_factory=list)

    def move(self) -> None:
        """Transactions of every kind, over every crash of the server."""
        while not self.stop.is_set():
            try:
                with self.server.connect() as connection:
                    while not self.stop.is_set():
                        self._one(connection)
            except psycopg.Error:
                time.sleep(0.05)

    def _one(self, connection: psycopg.Connection[Any]) -> None:
        chance, amount = self.chance, self.chance.randrange(50)
        giver, taker = chance.randrange(1, ACCOUNTS + 1), chance.randrange(1, ACCOUNTS + 1)
        with connection.transaction():
            connection.execute("UPDATE savings SET amount = amount - %s WHERE abs(id) = %s", [amount, giver])
            connection.execute("UPDATE current SET amount = amount + %s WHERE id = %s", [amount, taker])
            connection.execute("INSERT INTO journal VALUES (%s, %s), (%s, NULL)", [self.moves % 50, f"to {taker}", self.moves % 50])
            if chance.random() < 0.1:  # another key, with a value that is not sent again
                connection.execute("UPDATE savings SET id = -id WHERE abs(id) = %s", [taker])
            if chance.random() < 0.2:
                connection.execute("DELETE FROM journal WHERE ctid IN (SELECT ctid FROM journal LIMIT %s)", [chance.randrange(9)])
            if chance.random() < 0.01:
                connection.execute("TRUNCATE journal")
        self.moves += 1
        time.sleep(chance.choice((0.0, 0.0, 0.01)))

    def look(self, keeper: KeeperProcess) -> None:
        """Readers of the copy: no version may show money that is on its way."""
        with Client.local(keeper.home.root, retry_for_s=0.0) as client:
            while not self.stop.is_set():
                try:
                    total = _total(client)
                except PondkeeperError:
                    time.sleep(0.05)
                    continue
                self.looks += 1
                if total != 2 * ACCOUNTS * MONEY:
                    self.wrong.append(f"a reader saw {total} in all, and there are always {2 * ACCOUNTS * MONEY}")
                time.sleep(0.01)


def play(stage: Stage) -> None:
    """Kill somebody, round after round, while money is moved; then let all of it arrive, and compare."""
    room, chance = stage.room("bank"), stage.chance
    home = Home(default_home(room / "bank.duckdb"))
    home.root.mkdir(mode=0o700)
    keeper = KeeperProcess(room / "bank.duckdb")
    kills: Counter[str] = Counter()
    with PostgresServer() as server, keepers(keeper):
        server.execute(SHAPE)
        home.settings_file.write_text(JOB.format(source=server.socket_url()))
        keeper.start()
        bank = Bank(server, random.Random(f"{stage.options.seed}/bank"))
        threads = [threading.Thread(target=bank.move), threading.Thread(target=bank.look, args=(keeper,))]
        try:
            wait_until(lambda: _is_there(keeper), timeout_s=SETTLED_S, what="the first copy")
            for thread in threads:
                thread.start()
            for _ in range(stage.options.of(LONG_ROUNDS, SHORT_ROUNDS)):
                if not stage.has_time:
                    break
                time.sleep(chance.choice((0.1, 0.3, 0.7)))
                kills[_kill(chance, keeper, server, home)] += 1
            time.sleep(0.5)
        finally:
            bank.stop.set()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        try:
            stage.violated(_judge(keeper, server, bank))
            _control(stage, keeper, server)
        finally:
            for run_id in runs_of(home.root):
                end_orphans(run_id)
    stage.line(summary=True, moves=bank.moves, looks=bank.looks, kills=dict(kills))


def _total(client: Client) -> int:
    [[total]] = client.query(TOTAL).rows
    return int(total)


def _is_there(keeper: KeeperProcess) -> bool:
    with Client.local(keeper.home.root, retry_for_s=0.0) as client:
        try:
            return bool(_total(client))
        except PondkeeperError:
            return False


def _kill(chance: random.Random, keeper: KeeperProcess, server: PostgresServer, home: Home) -> str:
    """Kill somebody, and have him back where that is not the product's part; who it was."""
    victims: dict[str, Callable[[], None]] = {
        "run": lambda: _shoot(_run_pids(home)[1:]),
        "supervisor": lambda: _shoot(_run_pids(home)[:1]),
        "writer": lambda: _shoot(keeper.children("writer")),
        "keeper": lambda: _restart(keeper),
        "source": lambda: _crash(server),
    }
    who = chance.choice([[name] for name in victims] + [["supervisor", "keeper"], ["source", "run"]])
    for name in who:
        victims[name]()
    return " and ".join(who)


def _run_pids(home: Home) -> list[int]:
    going = [status for run_id in runs_of(home.root)[:5] if (status := read_status(home.root, run_id)) and _goes_on(status)]
    return [pid for status in going if status.pid for pid in tree(status.pid)]


def _goes_on(status: RunStatus) -> bool:
    return not status.is_final


def _shoot(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _restart(keeper: KeeperProcess) -> None:
    keeper.kill9()
    keeper.restart()


def _crash(server: PostgresServer) -> None:
    server.kill9()
    server.start()


def _judge(keeper: KeeperProcess, server: PostgresServer, bank: Bank) -> list[str]:
    """What readers saw, and what is different once everything has had time to arrive."""
    found = list(bank.wrong)
    try:
        wait_until(lambda: not _differing(keeper, server), timeout_s=SETTLED_S, what="agreement")
    except AssertionError:
        found += _differing(keeper, server)
    return found


def _differing(keeper: KeeperProcess, server: PostgresServer) -> list[str]:
    found = []
    with keeper.local_client(retry_for_s=30.0) as client:
        for table in TABLES:
            here = Counter(map(tuple, client.query(f"SELECT * FROM {table}").rows))
            there = Counter(server.execute(f"SELECT * FROM {table}"))
            missing, extra = (there - here).total(), (here - there).total()
            if missing or extra:
                found.append(f"{table}: {missing} rows of the source are missing, {extra} are too many")
    return found


def _control(stage: Stage, keeper: KeeperProcess, server: PostgresServer) -> None:
    """A row that the source does not have must be found, and so must money that it does not have."""
    with Client.local(keeper.home.root) as client:
        client.execute("INSERT INTO journal VALUES (-1, 'nobody wrote this')")
        version = client.execute("UPDATE savings SET amount = amount + 1 WHERE abs(id) = 1").version
        [[total]] = client.query(TOTAL, at_least=version).rows
    stage.control("a row too many", [text for text in _differing(keeper, server) if text.startswith("journal")])
    stage.control("money from nowhere", [str(total)] if int(total) != 2 * ACCOUNTS * MONEY else [])
