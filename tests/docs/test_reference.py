"""The reference pages written by hand say what the code says: every route, every field, every metric, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pondkeeper.errors import all_errors
from pondkeeper.server.app import KeeperApp
from pondkeeper.server.context import Context
from pondkeeper.server.job_metrics import JobCollector
from pondkeeper.server.metrics import _OF_DATABASE, DatabaseCollector, Meters
from pondkeeper.settings import Settings, leaves
from tests.docs.subjects import DOCS

REFERENCE = DOCS / "reference"
HTTP = (REFERENCE / "http.md").read_text()
METRICS = (REFERENCE / "metrics.md").read_text()


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    """The OpenAPI document, of an app without databases."""
    nothing: Any = SimpleNamespace()
    running: Any = SimpleNamespace(events=None)
    return KeeperApp(Context(nothing, running, nothing, Settings(), Meters(), nothing, nothing)).openapi()


def sections(text: str, level: int) -> dict[str, str]:
    """The sections of a page by their headings."""
    parts = re.split(rf"^{'#' * level} (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table_names(text: str) -> list[str]:
    """What stands in the first column of tables, of names in backquotes."""
    return re.findall(r"^\| `([\w.]+)` \|", text, flags=re.MULTILINE)


def test_every_route_has_its_heading(openapi: dict[str, Any]) -> None:
    """A route that is not documented, and a heading without a route, are both wrong."""
    routes = {f"{method.upper()} {path}" for path, methods in openapi["paths"].items() for method in methods}
    headings = {name for name in sections(HTTP, 3) if re.match(r"(GET|POST|PUT|PATCH|DELETE) /", name)}
    assert headings == routes


def test_every_shape_has_its_table(openapi: dict[str, Any]) -> None:
    """Every body and answer of the OpenAPI document has a table of exactly its fields."""
    shapes = {
        name: sorted(schema["properties"])
        for name, schema in openapi["components"]["schemas"].items()
        if not name.startswith(("HTTPValidation", "Validation"))
    }
    documented = {name: sorted(table_names(text)) for name, text in sections(HTTP.partition("## Shapes")[2], 3).items()}
    assert documented == shapes


def test_fields_that_may_be_left_out_say_so(openapi: dict[str, Any]) -> None:
    """A ? stands exactly at the fields that a request may leave out."""
    bodies = ("QueryBody", "Limits", "ExecuteBody", "Statement", "WriteLimits", "NewKeyBody")
    for name in bodies:
        schema = openapi["components"]["schemas"][name]
        optional = set(schema["properties"]) - set(schema.get("required", []))
        marked = set(re.findall(r"^\| `(\w+)` \|[^|]*\? \|", sections(HTTP, 3)[name], flags=re.MULTILINE))
        assert marked == optional, name


def test_every_metric_is_documented_and_no_other() -> None:
    """The names on the page are the names of a scrape, counters with their `_total`."""
    pool = SimpleNamespace(states=dict, waiting=0, kills=0)
    nothing: Any = SimpleNamespace(pool=pool, all=list, list=list)
    lineup = SimpleNamespace(queued=[], running=[])
    desk: Any = SimpleNamespace(carrier=SimpleNamespace(lineup=lineup), book=SimpleNamespace(jobs=list), problem=None)
    families = [*Meters().registry.collect(), *DatabaseCollector(nothing, nothing).collect(), *JobCollector(desk).collect()]
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    names |= {name + ("_total" if "Counter" in kind.__name__ else "") for name, _, kind, _ in _OF_DATABASE}
    assert set(table_names(METRICS)) == names


def test_every_setting_and_every_error_has_its_heading() -> None:
    """The generated pages are there, with a heading to link to for each."""
    assert set(sections((REFERENCE / "settings.md").read_text(), 3)) == set(leaves())
    assert {error.code for error in all_errors()} <= set(sections((REFERENCE / "errors.md").read_text(), 2))


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)}


def test_settings_and_errors_that_documents_name_exist() -> None:
    """A setting or an error's code that a document mentions in backquotes is one that there is."""
    sections_ = {name.split(".")[0] for name in leaves()}
    for path in sorted(DOCS.rglob("*.md")):
        named = set(re.findall(rf"`((?:{'|'.join(sorted(sections_))})\.[a-z_]+)`", path.read_text()))
        assert named <= set(leaves()), path
