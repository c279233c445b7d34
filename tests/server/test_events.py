"""Events: each listener gets what its key may see, and none waits for another."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from pondkeeper.client import Client
from pondkeeper.databases import events as events_module
from pondkeeper.databases.events import Event, EventHub
from pondkeeper.server import listeners
from pondkeeper.server.bounds import Bounds
from pondkeeper.server.routes import events as route
from tests.server.conftest import MakeServed, Served, read_all
from tests.support.keeper import KeeperProcess, wait_until


class Heard:
    """What a listener has heard so far, read in a thread."""

    def __init__(self, served: Served, token: str | None = "", query: str = "", **headers: str) -> None:
        self.events: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.heartbeats = 0
        self.is_over = False
        self._client = served.client(token)
        self._response = self._client.send(
            self._client.build_request("GET", f"/v1/events{query}", headers={name.encode(): value.encode() for name, value in headers.items()}), stream=True
        )
        self.status = self._response.status_code
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            for line in self._response.iter_lines():
                if line.startswith("data:"):
                    self.events.append(json.loads(line[5:]))
                elif line.startswith("id:"):
                    self.ids.append(line[3:].strip())
                elif line.startswith(": heartbeat"):
                    self.heartbeats += 1
        except (httpx.HTTPError, OSError):
            pass
        self.is_over = True

    @property
    def kinds(self) -> list[str]:
        return [event["kind"] for event in self.events]

    def close(self, served: Served) -> None:
        served.call(_let_go(served.app.context.running.events))
        self._thread.join(20)
        self._response.close()
        self._client.close()


async def _let_go(hub: EventHub) -> None:
    for listener in list(hub._listeners):
        listener.end()


@contextmanager
def hearing(served: Served, token: str | None = "", query: str = "", **headers: str) -> Iterator[Heard]:
    before = served.app.context.running.events.count
    heard = Heard(served, token, query, **headers)
    try:
        if heard.status == 200:
            wait_until(lambda: served.app.context.running.events.count > before or heard.is_over)
        yield heard
    finally:
        heard.close(served)


def emit(served: Served, kind: str, database: str = "pond", key_id: str | None = None, **data: Any) -> None:
    async def told() -> None:
        served.app.context.running.events.emit(kind, database, key_id, **data)

    served.call(told())


def test_without_a_key_nobody_listens(served: Served) -> None:
    with served.client(None) as client:
        assert client.get("/v1/events").status_code == 401


def test_a_listener_hears_what_happens(served: Served) -> None:
    with hearing(served) as heard:
        emit(served, "published", version=8)
        with served.client() as client:
            thread = threading.Thread(target=client.post, args=["/v1/query"], kwargs={"json": {"sql": "wait 20"}})
            thread.start()
            wait_until(lambda: "query_started" in heard.kinds)
            client.delete("/v1/queries/q_wait")
            thread.join(20)
        wait_until(lambda: len(heard.events) >= 3)
    assert heard.kinds == ["published", "query_started", "query_ended"]
    assert heard.events[0]["version"] == 8
    assert heard.events[1]["sql"] == "wait 20"


def test_each_hears_only_what_its_key_may_see(make_served: MakeServed) -> None:
    served = make_served("a", "b")
    reader_a = served.key("reader", "a")
    own = reader_a.split("_")[1]
    with (
        hearing(served) as admin,
        hearing(served, reader_a) as reader,
        hearing(served, served.key("writer", "b")) as writer,
        hearing(served, served.key("admin", "b")) as admin_of_b,
    ):
        emit(served, "published", "a", version=1)
        emit(served, "published", "b", version=2)
        emit(served, "query_started", "a", own, sql="mine", id="q1")
        emit(served, "query_started", "a", "somebody", sql="secret", id="q2")
        emit(served, "query_started", "b", "somebody", sql="secret of b", id="q3")
        emit(served, "lease", "b", holder=None)
        emit(served, "published", "a", version=3)
        emit(served, "published", "b", version=4)
        wait_until(lambda: all(len(each.events) >= count for each, count in
                               ((admin, 8), (reader, 3), (writer, 3), (admin_of_b, 4))))  # fmt: skip
        time.sleep(0.2)
    assert len(admin.events) == 8
    assert [event.get("sql") or event["version"] for event in reader.events] == [1, "mine", 3]
    assert [event["kind"] for event in writer.events] == ["published", "lease", "published"]
    assert [event["kind"] for event in admin_of_b.events] == ["published", "query_started", "lease", "published"]
    assert "secret" not in str(reader.events) + str(writer.events)


def test_runs_of_jobs_are_heard_by_who_may_see_the_job(make_served: MakeServed) -> None:
    """A run without a database is the whole keeper's; a key for some tables hears of none, for runs name tables."""
    served = make_served("a", "b")
    some_tables = str(served.call(served.keys.create("some", "reader", ["a"], tables=["flights"])).token)
    with (
        hearing(served) as admin,
        hearing(served, served.key("reader", "a")) as reader,
        hearing(served, some_tables) as partner,
        hearing(served, query="?kinds=run_finished&database=b") as of_b,
    ):
        for database in ("a", "b", ""):
            emit(served, "run_started", database, job=f"of {database or 'none'}", run_id="r")
            emit(served, "run_finished", database, job=f"of {database or 'none'}", run_id="r")
        emit(served, "published", "a", version=1)
        wait_until(lambda: len(admin.events) == 7 and reader.kinds[-1:] == partner.kinds[-1:] == ["published"] and of_b.events)
    assert [(event["database"], event.get("job")) for event in reader.events] == [("a", "of a"), ("a", "of a"), ("a", None)]
    assert partner.kinds == ["published"]
    assert [event["job"] for event in of_b.events] == ["of b"]
    assert [event["database"] for event in admin.events] == ["a", "a", "b", "b", None, None, "a"]


def test_a_listener_may_ask_for_less(make_served: MakeServed) -> None:
    served = make_served("a", "b")
    with hearing(served, query="?database=a&kinds=published,lease") as heard:
        for database in ("a", "b"):
            for kind in ("published", "queue", "lease"):
                emit(served, kind, database)
        wait_until(lambda: len(heard.events) >= 2)
    assert heard.kinds == ["published", "lease"]


@pytest.mark.parametrize(
    ("query", "role", "status"), [("?kinds=weather", "admin", 400), ("?database=b", "reader", 403), ("?database=%00", "reader", 403)]
)
def test_what_cannot_be_heard_is_refused(make_served: MakeServed, query: str, role: str, status: int) -> None:
    served = make_served("a", "b")
    with served.client(served.key(role, "a") if role == "reader" else "") as client:
        assert client.get(f"/v1/events{query}").status_code == status


def test_silence_is_filled_with_heartbeats(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "HEARTBEAT_S", 0.05)
    with hearing(served) as heard:
        wait_until(lambda: heard.heartbeats >= 3)
        emit(served, "published")
        wait_until(lambda: heard.events)


def test_a_revoked_key_hears_nothing_of_what_comes_after(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    token = served.key("reader")
    with hearing(served, token) as heard:
        emit(served, "published", version=1)
        wait_until(lambda: heard.events)
        served.call(served.keys.revoke(token.split("_")[1]))
        emit(served, "published", version=2)
        wait_until(lambda: heard.is_over)
    assert [event["version"] for event in heard.events] == [1]


def test_who_comes_back_goes_on_where_he_was(served: Served) -> None:
    with hearing(served) as first:
        for version in range(5):
            emit(served, "published", version=version)
        wait_until(lambda: len(first.events) == 5)
    emit(served, "published", version=5)
    with hearing(served, **{"Last-Event-ID": first.ids[2]}) as again:
        wait_until(lambda: len(again.events) >= 3)
    assert [event["version"] for event in again.events] == [3, 4, 5]


@pytest.mark.parametrize("last_id", ["0-0", "junk", "-", "x-99999999999999999999999", "\u0661-\u0661"])
def test_who_was_away_for_too_long_is_told_so(served: Served, last_id: str) -> None:
    heard = Heard(served, **{"Last-Event-ID": last_id})
    try:
        wait_until(lambda: heard.is_over)
    finally:
        heard.close(served)
    assert heard.kinds == ["gap"]


def test_a_slow_listener_gets_a_gap_and_holds_up_nobody(make_served: MakeServed) -> None:
    served = make_served(bounds=Bounds(unsent_bytes=16 * 1024, body_timeout_s=30.0))
    with served.connect() as slow, hearing(served) as quick:
        slow.sendall(served.request(b"", "/v1/events", "Connection: close", method="GET"))
        wait_until(lambda: served.app.context.running.events.count == 2)
        text = "x" * 10_000

        async def flood() -> float:
            began = time.monotonic()
            for number in range(4000):
                served.app.context.running.events.emit("published", "pond", text=text, version=number)
                await asyncio.sleep(0)
            return time.monotonic() - began

        took_s = served.call(flood(), timeout_s=60)
        wait_until(lambda: quick.events and (quick.is_over or quick.events[-1].get("version") == 3999), timeout_s=60)
        rest = read_all(slow)
    assert took_s < 30
    assert rest.count(b"event: published") < 4000
    assert b"event: gap" in rest[-2000:]
    assert rest.endswith(b"0\r\n\r\n")


def test_listeners_are_bounded_by_key(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "MAX_LISTENERS_PER_KEY", 1)
    with hearing(served):
        with served.client() as client:
            assert client.get("/v1/events").status_code == 429
        with hearing(served, served.key("reader")) as other:
            assert other.status == 200


def test_listeners_do_not_hold_up_the_end(make_served: MakeServed) -> None:
    served = make_served()
    heard = Heard(served)
    wait_until(lambda: served.app.context.running.events.count == 1)
    began = time.monotonic()
    served.call(served.server.stop(60.0), timeout_s=50)
    assert time.monotonic() - began < 30
    wait_until(lambda: heard.is_over)
    heard.close(served)


async def test_without_listeners_nothing_is_kept() -> None:
    hub = EventHub()
    for _ in range(10):
        hub.emit("published", "pond")
    assert not hub._recent


async def test_what_is_kept_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = EventHub()
    heard: list[Event] = []
    listener = hub.listen(lambda event: bool(heard.append(event)) or True)
    for number in range(events_module.RECENT + 10):
        hub.emit("published", "pond", version=number)
    assert len(hub._recent) == events_module.RECENT
    assert listener.has_missed_some
    assert not listener._unsent
    listener.close()


def test_a_real_keeper_tells_of_versions_queries_kills_and_leases(tmp_path: Path) -> None:
    with KeeperProcess(tmp_path / "pond.duckdb", "--readers", "2") as keeper:
        keeper.client().execute("CREATE TABLE t (a INTEGER)")
        told: list[dict[str, Any]] = []
        listening = Client.local(keeper.home.root)

        def listen() -> None:
            for event in listening.events():
                told.append(event)
                if event["kind"] == "published" and is_enough.is_set():
                    return

        is_enough = threading.Event()
        thread = threading.Thread(target=listen)
        thread.start()
        try:
            wait_until(lambda: keeper.client().query("SELECT 1") and told)
            with pytest.raises(Exception, match="did not finish"):
                keeper.client().query("SELECT count(*) FROM range(1000000000) a, range(1000) b", timeout_s=1.5)
            waits = f"while [ ! -e {tmp_path}/seen ]; do sleep 0.05; done"
            program = threading.Thread(target=keeper.cli, args=("run", "--", "sh", "-c", waits))
            program.start()
            try:
                wait_until(lambda: any(event["kind"] == "lease" for event in told), timeout_s=40)
            finally:
                (tmp_path / "seen").touch()
                program.join(60)
        finally:
            is_enough.set()
            keeper.client().execute("INSERT INTO t VALUES (1)")
            thread.join(60)
            listening.close()
    kinds = {event["kind"] for event in told}
    assert {"query_started", "query_ended", "query_killed", "lease", "published"} <= kinds
    [killed] = [event for event in told if event["kind"] == "query_killed"]
    assert killed["reason"] == "query_timed_out"
