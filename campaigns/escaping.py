"""Every vector through every door of a real keeper, as every role: nothing is read, made, reached, changed or shown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable

import duckdb
import httpx

from campaigns.canaries import TOKEN, Bait, Listener, leaks
from campaigns.running import Stage
from campaigns.vectors import Vector, vectors
from pondkeeper.client.client import Client
from pondkeeper.client.pipeline import Pipeline
from pondkeeper.errors import PondkeeperError
from tests.support.keeper import KeeperProcess

TIMEOUT_S = 10.0
SHORT_SHARE = 9  # as many as there are doors: each vector is tried at one of them
CLI_SHARE = 60
ANSWERED_WITHIN_S = 120.0
Ask = Callable[[str], tuple[int, str]]


class Doors:
    """The doors of one keeper that serves two databases, `mine` and `other`; the keys are for `mine` alone."""

    def __init__(self, keeper: KeeperProcess) -> None:
        self.keeper = keeper
        admin = keeper.client()
        admin.execute(f"CREATE TABLE t AS SELECT '{TOKEN}' AS word", database="other")
        version = admin.execute("CREATE TABLE t AS SELECT range AS n FROM range(10)", database="mine").version
        admin.query("SELECT 1", database="mine", at_least=version)
        self._http = httpx.Client(base_url=keeper.url, timeout=60.0, trust_env=False)
        self._control = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(keeper.home.socket)), base_url="http://keeper", timeout=60.0
        )
        self._pipeline = Pipeline(keeper.home.root, database="mine", retries=0)
        self._keys = {
            role: admin.create_key(f"{role} of mine", role, databases=["mine"])["token"]
            for role in ("reader", "writer", "admin")
        }

    def all(self) -> dict[str, Ask]:
        """Every door by its name."""
        doors: dict[str, Ask] = {}
        for role, token in self._keys.items():
            doors[f"query/{role}"] = self._over(self._http, "query", token)
            doors[f"execute/{role}"] = self._over(self._http, "execute", token)
        doors["query/control socket"] = self._over(self._control, "query", None)
        doors["execute/control socket"] = self._over(self._control, "execute", None)
        doors["pipeline"] = self._down_the_pipeline
        return doors

    def command_line(self, sql: str) -> tuple[int, str]:
        """`pondkeeper query --database mine SQL`; a text that no command line can carry is refused by the system."""
        if "\0" in sql:
            return 400, ""
        done = self.keeper.cli("query", "--database", "mine", "--", sql)
        return (200 if done.returncode == 0 else 400), done.stdout + done.stderr

    def _down_the_pipeline(self, sql: str) -> tuple[int, str]:
        """A write without HTTP, on `pipeline.sock`."""
        try:
            return 200, str(self._pipeline.execute(sql, timeout_s=TIMEOUT_S).result(ANSWERED_WITHIN_S))
        except PondkeeperError as error:
            return error.http_status, f"{error} {error.details} {error.private}"

    def close(self) -> None:
        self._pipeline.close()
        self._http.close()
        self._control.close()

    def settings(self) -> str:
        """What every reader and the writer say of their settings, as far as it may be asked."""
        names = (
            "threads",
            "memory_limit",
            "enable_external_access",
            "lock_configuration",
            "TimeZone",
            "default_null_order",
        )
        sql = "SELECT " + ", ".join(f"current_setting('{name}')" for name in names)
        client = Client.local(self.keeper.home.root)
        try:
            readers = {json.dumps(client.query(sql, database="mine").rows) for _ in range(8)}
            version = client.execute(f"CREATE OR REPLACE TABLE seen AS {sql}", database="mine").version
            writer = client.query("FROM seen", database="mine", at_least=version).rows
        finally:
            client.close()
        return f"{sorted(readers)} {writer}"

    @staticmethod
    def _over(http: httpx.Client, word: str, token: str | None) -> Ask:
        headers = {"Authorization": f"Bearer {token}"} if token else {}

        def ask(sql: str) -> tuple[int, str]:
            body = {"sql": sql, "limits": {"timeout_s": TIMEOUT_S}}
            answer = http.post(f"/v1/databases/mine/{word}", json=body, headers=headers)
            return answer.status_code, answer.text

        return ask


def play(stage: Stage) -> None:
    """The part `doors`: a keeper as users start it, in strict mode, and everybody who wants to get out of it."""
    folder = stage.room("pond")
    bait = Bait(stage.folder / "bait", folder / "other.duckdb", folder / ".pondkeeper" / "control.db")
    for name in ("mine", "other"):
        duckdb.connect(str(folder / f"{name}.duckdb")).close()
    environment = {"PONDKEEPER_FENCE_MODE": "strict", "CANARY": TOKEN}
    keeper = KeeperProcess(folder, "--readers", "2", environment=environment)
    with Listener() as listener, keeper:
        doors = Doors(keeper)
        try:
            _through(stage, doors, bait, listener)
        finally:
            doors.close()


def _through(stage: Stage, doors: Doors, bait: Bait, listener: Listener) -> None:
    every = vectors(bait.targets(listener.url))
    before = doors.settings()
    asked = 0
    for number, (name, ask) in enumerate(doors.all().items()):
        harmless = ask("SELECT 40 + 2 AS answer")[0]
        stage.control(f"{name} is open to what is harmless", [str(harmless)] if harmless == _expected(name) else [])
        chosen = every[number::SHORT_SHARE] if stage.options.short else every
        asked += _try(stage, name, ask, chosen, _secrets(doors, name))
        stage.violated([f"{name}: a file was made or changed: {path}" for path in bait.changes()])
    share = CLI_SHARE * SHORT_SHARE if stage.options.short else CLI_SHARE
    asked += _try(stage, "command line", doors.command_line, every[::share], _secrets(doors, "command line"))
    stage.violated([f"a file was made or changed: {path}" for path in bait.changes()])
    stage.violated([f"{listener.connections} connections were made"] if listener.connections else [])
    after = doors.settings()
    stage.violated([f"settings were {before}, and are {after}"] if after != before else [])
    stage.line(vectors=len(every), asked=asked, doors=len(doors.all()) + 1, connections=listener.connections)


def _expected(door: str) -> int:
    return 403 if door == "execute/reader" else 200


def _secrets(doors: Doors, door: str) -> tuple[str, ...]:
    """The paths that this door may not show: admins see them in `private`."""
    if "admin" in door or door in ("query/control socket", "execute/control socket", "pipeline", "command line"):
        return ()
    return (str(doors.keeper.home.root), str(doors.keeper.target))


def _try(stage: Stage, door: str, ask: Ask, chosen: Iterable[Vector], secrets: tuple[str, ...]) -> int:
    counted: Counter[int] = Counter()
    broken: list[str] = []
    for vector in chosen:
        for text in vector.texts:
            status, answer = ask(text)
            counted[status] += 1
            found = leaks(answer, text)
            found += [f"the path {secret}" for secret in secrets if secret in answer and secret not in text]
            stage.violated([f"{door}: {mark} leaked by {text!r}" for mark in found])
            if status >= 500 and status != 503:
                broken.append(f"{status} for {text!r}: {answer[:200]}")
    stage.violated([f"{door}: {text}" for text in broken])
    stage.line(door=door, asked=counted.total(), statuses=dict(sorted(counted.items())))
    return counted.total()
