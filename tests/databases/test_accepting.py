"""wait=accepted as its clients see it: tickets, order, whoever has the database meanwhile, both promises together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

from pondkeeper.client.client import Client
from pondkeeper.errors import TicketNotWaiting
from tests.conftest import StartKeeper
from tests.databases.accepting import NDJSON, Senders, accepted, lease_held, ndjson, outcome_of, send, wait_drained
from tests.databases.conftest import wait_closed
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.strangers import Stranger


@pytest.fixture
def http(pond: KeeperProcess, client: Client) -> Any:
    """A bare client; `t` has a column `n` and is empty, and nothing waits in the spool."""
    wait_drained(pond)
    client.query("SELECT 1", at_least=client.execute("DELETE FROM t").version)
    with pond.http() as http:
        yield http


def numbers(pond: KeeperProcess, at_least: int) -> list[int]:
    answer = pond.client().query("SELECT n FROM t ORDER BY rowid", at_least=at_least)
    return [n for [n] in answer.rows]


def test_a_ticket_tells_what_became_of_it(pond: KeeperProcess, http: httpx.Client) -> None:
    """Committed with rows and version; the version has the rows; the location leads to it."""
    answer = send(http, "pond", "t", {"n": 1}, {"n": 2})
    ticket = accepted(answer)
    shown = outcome_of(pond, ticket)
    assert (shown["outcome"], shown["rows"], shown["table"]) == ("committed", 2, "main.t")
    assert numbers(pond, shown["version"]) == [1, 2]
    assert http.get(answer.headers["location"]).json() == shown


@pytest.mark.timeout(120)
def test_accepting_goes_on_while_a_program_has_the_lease(pond: KeeperProcess, http: httpx.Client) -> None:
    """For as long as it likes: everything is accepted at once, seen as waiting with the holder's name, then applied in order."""
    with lease_held(pond.database):
        tickets = [accepted(send(http, "pond", "t", {"n": n})) for n in range(300)]
        wait_until(lambda: pond.client().status("pond")["lease"]["holder"], what="the holder in the status")
        shown = pond.client().ticket(tickets[-1])
        assert (shown["outcome"], shown["place"]) == ("waiting", 299)
        assert (shown["holder"]["who"], shown["holder"]["why"]) == ("nightly", "a load of an hour")
        listed = pond.client().tickets(waiting=5, settled=0)
        assert [each["ticket"] for each in listed["tickets"]] == tickets[:5]
        assert listed["spool"]["waiting"] == 300
        assert pond.client().queue("pond")["spool"]["waiting"] == 300
        assert 'pondkeeper_spool_waiting{database="pond"} 300.0' in http.get("/metrics").text
        assert "300 accepted ingests wait in the spool" in pond.cli("queue").stderr
        assert "pond: 300 accepted ingests wait in the spool" in pond.cli("status").stdout
    last = outcome_of(pond, tickets[-1])
    assert numbers(pond, last["version"]) == list(range(300))
    versions = [outcome_of(pond, ticket)["version"] for ticket in tickets[:: len(tickets) // 10]]
    assert versions == sorted(versions)
    assert len(set(versions)) < len(versions), "neighbours are loaded together"


def test_accepting_goes_on_while_a_stranger_has_the_file(pond: KeeperProcess, http: httpx.Client, tmp_path: Path) -> None:
    """A program that opened it without asking: accepted at once, applied when it has gone."""
    wait_closed(pond.client())
    with Stranger(pond.target, tmp_path):
        tickets = [accepted(send(http, "pond", "t", {"n": n})) for n in range(10)]
        assert pond.client().ticket(tickets[0])["outcome"] == "waiting"
    last = outcome_of(pond, tickets[-1])
    assert numbers(pond, last["version"]) == list(range(10))


def test_what_a_program_makes_meanwhile_is_there_when_the_rows_come(pond: KeeperProcess, http: httpx.Client) -> None:
    """Rows for a table that the holder of the lease is about to make are not refused for that."""
    with lease_held(pond.database):
        ticket = accepted(send(http, "pond", "made_later", {"n": 1}))
        wait_until(lambda: pond.client().queue("pond")["writes"], timeout_s=30, what="a first attempt")
        with duckdb.connect(str(pond.target)) as database:
            database.execute("CREATE TABLE made_later (n INTEGER)")
    assert outcome_of(pond, ticket)["outcome"] == "committed"
    refused = outcome_of(pond, accepted(send(http, "pond", "never_made", {"n": 1})))
    assert (refused["outcome"], refused["error"]["code"]) == ("refused", "table_not_found")


def test_bad_rows_in_the_midst_of_many_are_refused_alone(pond: KeeperProcess, http: httpx.Client) -> None:
    """The others of the load are committed; the reason is that of their own line; a key that is there twice as well."""
    with lease_held(pond.database):
        good = [accepted(send(http, "pond", "t", {"n": n})) for n in range(20)]
        bad = accepted(send(http, "pond", "t", {"n": "x"}))
        twice = accepted(send(http, "pond", "t", {"n": 3}))
        more = [accepted(send(http, "pond", "t", {"n": n})) for n in range(20, 40)]
    last = outcome_of(pond, more[-1])
    assert numbers(pond, last["version"]) == list(range(40))
    assert {outcome_of(pond, ticket)["outcome"] for ticket in good + more} == {"committed"}
    assert outcome_of(pond, bad)["error"]["code"] == "rows_invalid"
    assert "line 1" in outcome_of(pond, bad)["error"]["message"]
    assert outcome_of(pond, twice)["outcome"] == "refused"


@pytest.mark.parametrize(
    ("body", "headers", "parameters", "wanted"),
    [
        (b"n\n1\n2\n", {"Content-Type": "text/csv"}, {}, [1, 2]),
        (b'[{"n": 1},\n {"n": 2}]', {"Content-Type": "application/json"}, {}, [1, 2]),
        (ndjson({"n": 1}, {"n": 1}, {"n": 2}), NDJSON, {"mode": "upsert", "key": "n"}, [1, 2]),
        (ndjson({"n": 1}, {"n": "bad"}, {"n": 2}), NDJSON, {"on_error": "reject"}, [1, 2]),
        (ndjson({"n": 1}, {"n": 1}, {"n": 2}), NDJSON, {"on_error": "reject"}, [1, 2]),
        (ndjson(*({"n": n} for n in range(20_000))), NDJSON, {}, list(range(20_000))),
    ],
    ids=["csv", "json", "upsert", "reject", "reject twins", "large"],
)
def test_formats_modes_and_sizes(
    pond: KeeperProcess, http: httpx.Client, body: bytes, headers: Any, parameters: Any, wanted: list[int]
) -> None:
    """As with wait=commit; a large body lies in a file of its own until it is applied."""
    shown = outcome_of(pond, accepted(send(http, "pond", "t", body, headers=headers, **parameters)))
    assert shown["outcome"] == "committed", shown
    found = numbers(pond, shown["version"])
    assert (sorted(found) if "mode" in parameters else found) == wanted  # an upsert promises no order of new rows
    assert shown["rejected"] == (1 if parameters.get("on_error") else 0) if "rejected" in shown else True
    assert list(pond.database.incoming.iterdir()) == []


# Keys


def test_a_key_means_the_same_for_both_promises(pond: KeeperProcess, http: httpx.Client) -> None:
    """Accepted, then sent with wait=commit, and the other way: applied once; other rows with the key are refused."""

    def sent(key: str, n: int, wait: str) -> httpx.Response:
        return send(http, "pond", "t", {"n": n}, headers=NDJSON | {"Idempotency-Key": key}, wait=wait)

    ticket = accepted(sent("first", 1, "accepted"))
    assert accepted(sent("first", 1, "accepted")) == ticket
    assert outcome_of(pond, ticket)["outcome"] == "committed"
    assert accepted(sent("first", 1, "accepted")) == ticket
    assert sent("first", 1, "commit").json()["rows"] == 1
    assert sent("first", 2, "accepted").json()["error"]["code"] == "idempotency_conflict"

    assert sent("second", 2, "commit").json()["outcome"] == "committed"
    assert outcome_of(pond, accepted(sent("second", 2, "accepted")))["outcome"] == "committed"
    refused = outcome_of(pond, accepted(sent("third", 3, "accepted")))
    assert numbers(pond, refused["version"]) == [1, 2, 3]


# Taking back


@pytest.mark.parametrize("which", [0, 4])
def test_a_ticket_can_be_taken_back(pond: KeeperProcess, http: httpx.Client, which: int) -> None:
    """Also the first one, with which the writer waits for the lease already; by DELETE and by the command line."""
    with lease_held(pond.database):
        tickets = [accepted(send(http, "pond", "t", {"n": n})) for n in range(5)]
        wait_until(lambda: pond.client().ticket(tickets[0])["is_being_applied"], what="a first attempt")
        done = pond.cli("ticket", "cancel", tickets[which])
        assert (done.returncode, done.stdout) == (0, "")
        assert http.delete(f"/v1/databases/pond/tickets/{tickets[2]}").json()["outcome"] == "cancelled"
    wait_drained(pond)
    with pytest.raises(TicketNotWaiting):
        pond.client(retry_for_s=0).cancel_ticket(tickets[1])
    assert numbers(pond, outcome_of(pond, tickets[3])["version"]) == [n for n in range(5) if n not in (which, 2)]


# Who may see what


def test_tickets_belong_to_their_key(pond: KeeperProcess, http: httpx.Client) -> None:
    """Readers neither send nor see; a writer sees its own, an administrator all."""
    admin = pond.client()
    keys = {name: admin.create_key(name, role)["token"] for name, role in (("one", "writer"), ("two", "writer"), ("r", "reader"))}
    with (
        httpx.Client(base_url=pond.url, headers={"Authorization": f"Bearer {keys['one']}"}, trust_env=False, timeout=60) as one,
        httpx.Client(base_url=pond.url, headers={"Authorization": f"Bearer {keys['two']}"}, trust_env=False, timeout=60) as two,
        httpx.Client(base_url=pond.url, headers={"Authorization": f"Bearer {keys['r']}"}, trust_env=False, timeout=60) as reader,
    ):
        answer = send(one, "pond", "t", {"n": 1})
        ticket, place = accepted(answer), answer.headers["location"]
        assert send(reader, "pond", "t", {"n": 2}).status_code == 403
        assert [http.get(place).status_code for http in (one, two, reader)] == [200, 404, 403]
        assert [http.delete(place).status_code for http in (two, reader)] == [404, 403]
        listed = {name: http.get("/v1/databases/pond/tickets") for name, http in (("one", one), ("two", two))}
        seen = {name: [each["ticket"] for each in answer.json()["tickets"]] for name, answer in listed.items()}
    assert seen == {"one": [ticket], "two": []}
    assert ticket in [each["ticket"] for each in admin.tickets()["tickets"]]
    listed_keys = admin.keys()
    for entry in listed_keys:
        if entry["name"] in keys and entry["state"] == "live":
            admin.revoke_key(entry["id"])


def test_the_command_line_shows_tickets(pond: KeeperProcess, http: httpx.Client) -> None:
    """List and show, for people and for programs; one that was refused is an error."""
    good, bad = accepted(send(http, "pond", "t", {"n": 1})), accepted(send(http, "pond", "t", {"n": "x"}))
    outcome_of(pond, bad)
    listed = pond.cli("ticket", "list")
    assert f"{good}   committed" in listed.stdout
    assert "0 ingests wait" in listed.stderr
    assert json.loads(pond.cli("ticket", "list", "--json").stdout)["tickets"][0]["ticket"] == bad
    shown = pond.cli("ticket", "show", good, "--wait", "10s")
    assert (shown.returncode, shown.stdout) == (0, "committed\n")
    assert json.loads(pond.cli("ticket", "show", bad, "--json").stdout)["outcome"] == "refused"
    refused = pond.cli("ticket", "show", bad)
    assert refused.returncode == 2
    assert "rows_invalid" in refused.stderr
    assert pond.cli("ticket", "show", "tk_nothing").returncode == 2


# Many


@pytest.mark.timeout(180)
def test_concurrent_clients_keep_their_order(start_keeper: StartKeeper) -> None:
    """Beside ordinary writes, which do not wait for the spool."""
    keeper = start_keeper()
    keeper.client().execute(["CREATE TABLE t (client INTEGER, seq INTEGER)", "CREATE TABLE other (n INTEGER)"])
    with Senders(keeper, 8) as senders:
        for number in range(20):
            keeper.client().execute("INSERT INTO other VALUES (?)", [number])
            senders.wait_accepted(20)
    wait_drained(keeper)
    keeper.stop()
    assert senders.check(keeper.target) == senders.accepted
