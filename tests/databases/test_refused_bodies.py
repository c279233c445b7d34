"""A ticket that was refused can be looked at and sent again, once; and what was put aside of an ingest can be listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from pondkeeper.client.client import Client
from pondkeeper.errors import BodyNotKept
from tests.databases.accepting import NDJSON, accepted, ndjson, outcome_of, send, wait_drained
from tests.support.keeper import KeeperProcess

SMALL = ndjson({"n": 1}, {"n": 2})
LARGE = ndjson(*({"n": n} for n in range(20_000)))


@pytest.fixture
def http(pond: KeeperProcess, client: Client) -> Any:
    """A bare client; the table `later` is not there."""
    wait_drained(pond)
    client.query("SELECT 1", at_least=client.execute("DROP TABLE IF EXISTS later").version)
    with pond.http() as http:
        yield http


def refused(pond: KeeperProcess, http: httpx.Client, body: bytes, **parameters: Any) -> str:
    """The ticket of an ingest whose table is not there."""
    ticket = accepted(send(http, "pond", "later", body, **parameters))
    shown = outcome_of(pond, ticket)
    assert (shown["outcome"], shown["body_bytes"]) == ("refused", len(body)), shown
    return ticket


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
def test_a_refused_ingest_is_sent_again_once(pond: KeeperProcess, client: Client, http: httpx.Client, body: bytes) -> None:
    """Its body is what was sent; when the table is there, it is applied with a new ticket, however often it is retried."""
    ticket = refused(pond, http, body)
    assert b"".join(client.ticket_body(ticket)) == body
    client.execute("CREATE TABLE later (n INTEGER)")

    path = f"/v1/databases/pond/tickets/{ticket}/retry"
    first, second = (accepted(http.post(path)) for _ in range(2))

    assert first == second
    shown = outcome_of(pond, first)
    assert (shown["outcome"], shown["rows"]) == ("committed", body.count(b"\n"))
    counted = client.query("SELECT count(*) FROM later", at_least=shown["version"], timeout_s=25)
    assert counted.scalar() == body.count(b"\n")
    old = client.ticket(ticket)
    assert (old["outcome"], old["retried_as"]) == ("refused", first)
    assert "body_bytes" not in old
    with pytest.raises(BodyNotKept, match=first):
        list(client.ticket_body(ticket))
    assert list(pond.database.incoming.iterdir()) == []


def test_refused_a_second_time(pond: KeeperProcess, client: Client, http: httpx.Client) -> None:
    """A retry that fails again keeps the body under its own ticket."""
    ticket = refused(pond, http, SMALL)
    again = client.retry_ticket(ticket)
    assert outcome_of(pond, again)["outcome"] == "refused"
    assert b"".join(client.ticket_body(again)) == SMALL


def test_only_of_what_was_refused(pond: KeeperProcess, client: Client, http: httpx.Client) -> None:
    """A committed ticket has no body any more, and is never applied a second time."""
    ticket = accepted(send(http, "pond", "t", SMALL, create="true"))
    assert outcome_of(pond, ticket)["outcome"] == "committed"
    with pytest.raises(BodyNotKept):
        client.retry_ticket(ticket)


def test_they_survive_the_keeper(pond: KeeperProcess, client: Client, http: httpx.Client, tmp_path: Path) -> None:
    """On the command line: shown, printed, sent again; the reject files are listed with table and count."""
    ticket = refused(pond, http, SMALL, on_error="reject")
    shown = pond.cli("ticket", "show", ticket)
    assert shown.returncode != 0
    assert f"pondkeeper ticket retry {ticket}" in shown.stderr
    assert pond.cli("ticket", "body", ticket).stdout.encode() == SMALL

    client.execute("CREATE TABLE later (n INTEGER CHECK (n < 2))")
    retried = pond.cli("ticket", "retry", ticket).stdout.strip()
    outcome = outcome_of(pond, retried)

    assert (outcome["rows"], outcome["rejected"]) == (1, 1)
    [listed] = [each for each in json.loads(pond.cli("rejects", "list", "--json").stdout) if each["rejects"] == outcome["rejects"]]
    assert (listed["table"], listed["rejected"]) == ("main.later", 1)
    assert outcome["rejects"] in pond.cli("rejects", "list").stdout
    row = json.loads(pond.cli("rejects", "show", outcome["rejects"]).stdout)
    assert (row["line"], row["record"]) == (2, {"n": 2})


def test_another_key_sees_neither(pond: KeeperProcess, client: Client, http: httpx.Client) -> None:
    """A body is its sender's, and an administrator's; of others the ticket itself is not found."""
    ticket = refused(pond, http, SMALL)
    made = client.create_key("somebody", role="writer")
    with httpx.Client(base_url=pond.url, headers={"Authorization": f"Bearer {made['token']}"}) as other:
        assert other.get(f"/v1/databases/pond/tickets/{ticket}/body").status_code == 404
        assert other.post(f"/v1/databases/pond/tickets/{ticket}/retry", headers=NDJSON).status_code == 404
        assert other.get("/v1/databases/pond/rejects").status_code == 200
