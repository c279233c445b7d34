"""One gate: every route that there is passes it, with nobody's help; one that does not is found here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import BaseRoute

from pondkeeper.access import authorize
from pondkeeper.server.gate import OPEN_PATHS
from tests.server.conftest import Served
from tests.support.keeper import REPOSITORY

DESCRIBES_ITSELF = {"/openapi.json"}  # a key is asked for, of whatever role: it names nobody's data
LISTENERS = {"server/http_server.py": "behind Gate", "server/pipelines.py": "authorize for each connection and frame"}


class WatchedRules(dict[authorize.Action, Any]):
    """The rules, which remember whether they were asked."""

    def __init__(self) -> None:
        super().__init__(authorize.RULES)
        self.asked: list[authorize.Action] = []

    def __getitem__(self, action: authorize.Action) -> Any:
        self.asked.append(action)
        return super().__getitem__(action)


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> WatchedRules:
    watched = WatchedRules()
    monkeypatch.setattr(authorize, "RULES", watched)
    return watched


def all_routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Method and path of every route, those of included routers too."""
    pending: list[BaseRoute] = list(app.routes)
    while pending:
        route = pending.pop()
        pending += (
            getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None) or ()
        )
        for method in sorted(getattr(route, "methods", None) or ()):
            yield method, str(getattr(route, "path", ""))


def concrete(path: str) -> str:
    """The path with something in the place of each parameter."""
    words = ("pond" if word == "{name}" else "7" if word.startswith("{") else word for word in path.split("/"))
    return "/".join(words)


def asked(client: httpx.Client, method: str, path: str) -> tuple[int, str]:
    """The status, and the text of a refusal. What is not refused is not read: a stream of events has no end."""
    body: dict[str, Any] | None = None if method in ("GET", "HEAD", "DELETE") else {}
    with client.stream(method, concrete(path), json=body) as response:
        return response.status_code, response.read().decode() if response.status_code >= 400 else ""


def ungated(served: Served, rules: WatchedRules) -> list[str]:
    """The routes that answer somebody without having asked the gate."""
    found = []
    with served.client(None) as nobody, served.client(served.key("reader", "elsewhere")) as stranger:
        for method, path in sorted(set(all_routes(served.app))):
            if path in OPEN_PATHS:
                continue
            if asked(nobody, method, path)[0] != 401:
                found.append(f"{method} {path} wants no key")
            rules.asked.clear()
            asked(stranger, method, path)
            if not rules.asked and path not in DESCRIBES_ITSELF:
                found.append(f"{method} {path} asks for no right")
    return found


def test_every_route_asks_for_a_key_and_a_right(served: Served, rules: WatchedRules) -> None:
    routes = set(all_routes(served.app))
    assert {("POST", "/v1/query"), ("POST", "/v1/databases/{name}/execute"), ("GET", "/v1/databases")} <= routes
    assert ungated(served, rules) == []


def test_a_route_beside_the_gate_is_found(served: Served, rules: WatchedRules) -> None:
    """The control: a route that somebody forgot to ask the gate in."""
    served.app.add_api_route("/v1/forgotten", lambda: {"everything": "shown"}, methods=["GET"])
    assert ungated(served, rules) == ["GET /v1/forgotten asks for no right"]


def test_who_may_not_see_a_database_gets_nothing_of_it(served: Served) -> None:
    """Every route of a database refuses a key that is for another one, and does not tell whether it exists."""
    with served.client(served.key("admin", "elsewhere")) as stranger:
        for method, path in set(all_routes(served.app)):
            if "{name}" not in path:
                continue
            status, here = asked(stranger, method, path)
            nowhere = asked(stranger, method, path.replace("{name}", "nowhere"))
            assert nowhere == (status, here.replace("'pond'", "'nowhere'")), (method, path)
            assert status == 403, (method, path, here)


def test_every_listener_is_known() -> None:
    """Whoever opens another door says here how it passes the gate."""
    package = REPOSITORY / "src" / "pondkeeper"
    opens = (
        "create_server(",
        "create_unix_server(",
        "start_server(",
        "start_unix_server(",
        "SimpleServer(",
        "HTTPServer(",
    )
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if any(word in path.read_text() for word in opens) and "listening" not in path.name
    }
    assert found == set(LISTENERS)
