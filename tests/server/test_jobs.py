"""Jobs and runs over HTTP: who may do what, and streams that go on until a run has ended."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from pondkeeper.access.audit_reading import Filter, records
from pondkeeper.client import Client
from pondkeeper.errors import JobNotFound, RunCancelled, RunFailed, RunNotFound, SourceUnavailable
from pondkeeper.jobs.status import Phase, status_json
from tests.server.conftest import MakeServed, Served
from tests.server.jobs_standin import Desk
from tests.support.keeper import wait_until

NO_RUN = "20261121T031500Z-4f2a9c"


@pytest.fixture
def desk(served: Served) -> Desk:
    """Jobs of the one database, of another, and of none."""
    found = Desk(served.folder, ("ours", "pond"), ("theirs", "elsewhere"), ("loose", None))
    served.app.context.jobs = found  # type: ignore[assignment]
    return found


def status_of(served: Served, token: str, method: str, path: str, **options: Any) -> int:
    with served.client(token) as client:
        return client.request(method, path, **options).status_code


@contextmanager
def client_of(served: Served, token: str | None = None, **options: Any) -> Iterator[Client]:
    with Client(served.url, token or served.token, **options) as client:
        yield client


def test_each_role_may_do_this_and_no_more(served: Served, desk: Desk) -> None:
    """A reader watches, a writer runs and cancels and reads logs, an administrator switches."""
    tokens = {role: served.key(role, "pond") for role in ("reader", "writer", "admin")}
    run = desk.make("ours").run_id
    asked: list[tuple[str, str, dict[str, Any], tuple[int, int, int]]] = [
        ("GET", "/v1/jobs", {}, (200, 200, 200)),
        ("GET", "/v1/jobs/ours", {}, (200, 200, 200)),
        ("GET", "/v1/runs", {}, (200, 200, 200)),
        ("GET", "/v1/runs?job=ours", {}, (200, 200, 200)),
        ("GET", f"/v1/runs/{run}", {}, (200, 200, 200)),
        ("GET", f"/v1/runs/{run}/log", {}, (403, 200, 200)),
        ("GET", f"/v1/runs/{run}?follow=true&log_offset=0", {}, (403, 200, 200)),
        ("POST", "/v1/jobs/ours/runs", {}, (403, 202, 202)),
        ("POST", "/v1/jobs/ours/accept-drift", {}, (403, 200, 200)),
        ("PATCH", "/v1/jobs/ours", {"json": {"enabled": False}}, (403, 403, 200)),
        ("DELETE", f"/v1/runs/{run}", {}, (403, 202, 202)),
    ]
    for method, path, options, wanted in asked:
        if "follow" in path:
            desk.change(run, phase=Phase.DONE)
        assert tuple(status_of(served, token, method, path, **options) for token in tokens.values()) == wanted, (method, path)


def test_what_one_may_not_see_does_not_exist(served: Served, desk: Desk) -> None:
    """Jobs and runs of another database, and those of none, are to such a key as if there were none."""
    run, loose = desk.make("theirs").run_id, desk.make("loose").run_id
    for token in (served.key("admin", "pond"), served.key("reader", "pond")):
        with served.client(token) as client:
            assert [job["name"] for job in client.get("/v1/jobs").json()["jobs"]] == ["ours"]
            assert client.get("/v1/runs").json() == {"runs": []}
            for one, other in (("/v1/jobs/theirs", "/v1/jobs/tteirs"), (f"/v1/runs/{run}", f"/v1/runs/{NO_RUN}"),
                               ("/v1/jobs/loose", "/v1/jobs/loosy"), (f"/v1/runs/{loose}/log", f"/v1/runs/{NO_RUN}/log"),
                               ("/v1/runs?job=theirs", "/v1/runs?job=tteirs")):  # fmt: skip
                seen, unseen = client.get(one), client.get(other)
                name, nothing = (path.split("/")[3] if "=" not in path else path.partition("=")[2] for path in (one, other))
                assert (seen.status_code, seen.text) == (404, unseen.text.replace(repr(nothing), repr(name)))
            assert client.delete(f"/v1/runs/{run}").status_code == 404
    with served.client() as client:
        assert len(client.get("/v1/jobs").json()["jobs"]) == 3
        assert {each["run_id"] for each in client.get("/v1/runs").json()["runs"]} == {run, loose}


def test_runs_of_others_take_no_place_in_a_list(served: Served, desk: Desk) -> None:
    ours = [desk.make("ours").run_id for _ in range(2)]
    for _ in range(5):
        desk.make("theirs")
    with served.client(served.key("reader", "pond")) as client:
        listed = [each["run_id"] for each in client.get("/v1/runs?limit=2").json()["runs"]]
        assert sorted(listed) == sorted(ours)
        assert [each["run_id"] for each in client.get("/v1/runs?limit=1").json()["runs"]] == [max(ours)]


def test_a_key_for_some_tables_sees_no_jobs(served: Served, desk: Desk) -> None:
    token = str(served.call(served.keys.create("some", "reader", ["pond"], tables=["flights"])).token)
    assert [status_of(served, token, "GET", path) for path in ("/v1/jobs", "/v1/jobs/ours", "/v1/runs")] == [403, 403, 403]


def test_settings_of_a_job_are_for_administrators_of_the_keeper(served: Served, desk: Desk) -> None:
    for token, sees in ((served.token, True), (served.key("admin", "pond"), False), (served.key("writer"), False)):
        with served.client(token) as client:
            found = client.get("/v1/jobs/ours").json()
            assert ("settings" in found) is sees
            assert ("/secret/place" in str(found)) is sees
            assert "settings" not in client.get("/v1/jobs").json()["jobs"][0]


@pytest.mark.parametrize("path", ["/v1/runs/..", "/v1/runs/%2e%2e%2fcontrol.db", "/v1/runs/x/log", f"/v1/runs/{NO_RUN}%0a", "/v1/runs/%00"])
def test_what_is_no_run_leads_nowhere(served: Served, desk: Desk, path: str) -> None:
    with served.client() as client:
        assert client.get(path).status_code == 404


@pytest.mark.parametrize("query", ["follow=maybe", "log_offset=-1&follow", "log_offset=x&follow"])
def test_what_is_no_number_is_refused(served: Served, desk: Desk, query: str) -> None:
    with served.client() as client:
        assert client.get(f"/v1/runs/{desk.make('ours').run_id}?{query}").status_code == 400


def test_the_audit_names_job_run_and_who(served: Served, desk: Desk) -> None:
    with served.client(served.key("writer", "pond")) as client:
        run = client.post("/v1/jobs/ours/runs").json()["run_id"]
        client.delete(f"/v1/runs/{run}")
        client.patch("/v1/jobs/ours", json={"enabled": False})
    served.audit.close()
    told = [(each["database"], each["target"], each["outcome"]) for each in records(served.folder / "audit", Filter()) if each.get("target")]
    assert told == [
        ("pond", f"job ours, run {run}", "ok"),
        ("pond", f"job ours, run {run}", "ok"),
        ("pond", "job ours", "forbidden"),
    ]
    assert desk.asked_by == [f"key writer pond {1}"]


def test_a_run_is_followed_to_its_end_with_its_log(served: Served, desk: Desk) -> None:
    run = desk.make("ours").run_id
    desk.write(run, "begun ä\n")
    heard: list[dict[str, Any]] = []
    with client_of(served) as client, in_thread(lambda: heard.extend(client.jobs.follow(run, log=True))):
        wait_until(lambda: len(heard) >= 2)
        desk.change(run, done=500, total=1000)
        wait_until(lambda: heard[-1].get("run", {}).get("done") == 500)
        desk.write(run, "more\n")
        desk.change(run, phase=Phase.DONE, rows=1000)
        wait_until(lambda: heard[-1].get("run", {}).get("phase") == "done")
    assert "".join(each.get("log", "") for each in heard) == "begun ä\nmore\n"
    assert [each["run"]["done"] for each in heard if "run" in each] == [0, 500, 500]


@contextmanager
def in_thread(work: Callable[[], Any]) -> Iterator[list[BaseException]]:
    """Something goes on in a thread that has ended when the `with` has."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield errors
    finally:
        thread.join(40)
        assert not thread.is_alive()


def test_a_log_is_read_from_anywhere_and_as_it_grows(served: Served, desk: Desk) -> None:
    run = desk.make("ours").run_id
    desk.write(run, "".join(f"line {number}\n" for number in range(20_000)))
    with client_of(served) as client, served.client() as bare:
        assert b"".join(client.jobs.log(run)).count(b"\n") == 20_000
        assert b"".join(client.jobs.log(run, tail=2)) == b"line 19998\nline 19999\n"
        tail = bare.get(f"/v1/runs/{run}/log?tail=1")
        assert bare.get(f"/v1/runs/{run}/log?offset={tail.headers['Pondkeeper-Log-Offset']}").text == tail.text == "line 19999\n"
        heard: list[bytes] = []
        with in_thread(lambda: heard.extend(client.jobs.log(run, follow=True, tail=1))) as errors:
            wait_until(lambda: heard)
            desk.write(run, "last\n")
            desk.change(run, phase=Phase.FAILED)
        assert b"".join(heard) == b"line 19999\nlast\n"
        assert not errors


def test_a_run_whose_folder_has_gone_is_as_history_has_it(served: Served, desk: Desk) -> None:
    status = desk.make("ours", Phase.FAILED)
    desk.remembered[status.run_id] = {**status_json(status), "log_end": "its last line\n"}
    shutil.rmtree(desk.log_file(status.run_id).parent)
    with client_of(served) as client:
        assert client.jobs.status(status.run_id) == status_json(status)
        assert b"".join(client.jobs.log(status.run_id, follow=True)) == b"its last line\n"
        assert client.jobs.cancel(status.run_id)["phase"] == "failed"


def test_waiting_ends_with_what_became_of_the_run(served: Served, desk: Desk) -> None:
    """The error of a run is raised as its class, whoever waits for it."""
    done, failed, cancelled, bare = (desk.make("ours", phase) for phase in (Phase.DONE, Phase.FAILED, Phase.CANCELLED, Phase.FAILED))
    desk.change(failed.run_id, error=SourceUnavailable("It is away.").to_wire())
    goes_on = desk.make("ours")
    with client_of(served) as client:
        assert client.jobs.wait(done.run_id)["run_id"] == done.run_id
        with pytest.raises(SourceUnavailable, match="It is away"):
            client.jobs.wait(failed.run_id)
        with pytest.raises(RunCancelled):
            client.jobs.wait(cancelled.run_id)
        with pytest.raises(RunFailed):
            client.jobs.wait(bare.run_id)
        with pytest.raises(RunFailed, match="goes on"):
            client.jobs.wait(goes_on.run_id, timeout_s=0.01)


def test_the_client_does_all_that_there_is(served: Served, desk: Desk) -> None:
    with client_of(served) as client:
        first, again = client.jobs.run("ours"), client.jobs.run("ours")
        assert first["run_id"] == again["run_id"]
        assert client.jobs.status(first["run_id"])["phase"] == "queued"
        assert client.jobs.get("ours")["current"]["run_id"] == first["run_id"]
        assert client.jobs.disable("ours")["is_enabled"] is False
        assert client.jobs.enable("ours")["is_enabled"] is True
        assert client.jobs.cancel(first["run_id"])["phase"] == "cancelled"
        assert client.jobs.get("ours")["last"]["run_id"] == first["run_id"]
        assert [each["run_id"] for each in client.jobs.runs("ours")] == [first["run_id"]]
        assert client.jobs.runs(before=first["run_id"]) == []
        assert client.jobs.accept_drift("ours")[0]["changes"] == ["new column c"]
        assert desk.accepted == ["ours"]
        assert client.jobs.list()["problem"] is None
        with pytest.raises(JobNotFound):
            client.jobs.run("nothing")
        with pytest.raises(RunNotFound):
            client.jobs.status(NO_RUN)


def test_a_stream_that_the_keeper_ends_early_is_not_whole(make_served: MakeServed) -> None:
    """A keeper that stops breaks it off, and who follows asks again; a revoked key hears nothing more."""
    served = make_served()
    desk = Desk(served.folder, ("ours", "pond"))
    served.app.context.jobs = desk  # type: ignore[assignment]
    run, token = desk.make("ours").run_id, served.key("writer", "pond")
    for path in (f"/v1/runs/{run}?follow", f"/v1/runs/{run}/log?follow"):
        with served.client(token) as client, pytest.raises(httpx.RemoteProtocolError), client.stream("GET", path) as response:  # noqa: PT012
            assert response.status_code == 200
            lines = response.iter_lines()
            if "log" not in path:
                assert json.loads(next(lines))["run"]["run_id"] == run
            served.app.context.is_stopping = True
            list(lines)
        served.app.context.is_stopping = False
    with served.client(token) as client, pytest.raises(httpx.RemoteProtocolError), client.stream("GET", f"/v1/runs/{run}/log?follow") as response:  # noqa: PT012
        served.call(served.keys.revoke(token.split("_")[1]))
        list(response.iter_bytes())
    wait_until(lambda: served.app.context.seats.count == 0)


def test_a_keeper_without_jobs_has_none(served: Served) -> None:
    with served.client() as client:
        assert client.get("/v1/jobs").json() == {"jobs": [], "problem": None}
        assert client.get("/v1/runs").json() == {"runs": []}
        assert client.post("/v1/jobs/nightly/runs").status_code == 404
        assert client.get(f"/v1/runs/{NO_RUN}").status_code == 404
