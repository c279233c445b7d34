"""Limits on every door: what is too long or has too many parameters is refused by its name, whichever way it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pondkeeper import Pipeline
from pondkeeper.errors import PondkeeperError
from tests.support.keeper import KeeperProcess

MAX_STATEMENT_BYTES, MAX_PARAMETERS = 4096, 3
LONG = "SELECT '" + "x" * MAX_STATEMENT_BYTES + "'"
FITS = "SELECT '" + "x" * (MAX_STATEMENT_BYTES - 100) + "'"
Door = Callable[[KeeperProcess, str, list[Any]], Any]


@pytest.fixture(scope="module")
def pond(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    environment = {
        "PONDKEEPER_LIMITS_MAX_STATEMENT_BYTES": str(MAX_STATEMENT_BYTES),
        "PONDKEEPER_LIMITS_MAX_PARAMETERS": str(MAX_PARAMETERS),
    }
    with KeeperProcess(tmp_path_factory.mktemp("doors") / "pond.duckdb", "--readers", "2", environment=environment) as keeper:
        keeper.client().execute("CREATE TABLE t (s VARCHAR)")
        yield keeper


def _pipelined(pond: KeeperProcess, sql: str, parameters: list[Any]) -> Any:
    with Pipeline(pond.home.root) as pipeline:
        return pipeline.execute(sql, parameters).result(30)


DOORS: dict[str, Door] = {
    "query over HTTP": lambda pond, sql, given: pond.client().query(sql, given),
    "query over the control socket": lambda pond, sql, given: pond.local_client().query(sql, given),
    "execute over HTTP": lambda pond, sql, given: pond.client().execute(sql, given),
    "an atomic list": lambda pond, sql, given: pond.client().execute(["SELECT 1", (sql, given)]),
    "execute over the control socket": lambda pond, sql, given: pond.local_client().execute(sql, given),
    "a pipeline": _pipelined,
}


@pytest.mark.parametrize("door", DOORS)
def test_the_length_of_a_statement_is_limited(pond: KeeperProcess, door: str) -> None:
    """One that fits passes; a longer one is refused, with the limit's name."""
    DOORS[door](pond, FITS, [])
    with pytest.raises(PondkeeperError) as refused:
        DOORS[door](pond, LONG, [])
    assert (refused.value.code, refused.value.details["limit"]) == ("body_too_large", "max_statement_bytes")


@pytest.mark.parametrize("door", DOORS)
def test_the_number_of_parameters_is_limited(pond: KeeperProcess, door: str) -> None:
    """As many as allowed pass; one more is refused, with the limit's name."""
    DOORS[door](pond, "SELECT ?::VARCHAR || ?::VARCHAR || ?::VARCHAR", ["a"] * MAX_PARAMETERS)
    with pytest.raises(PondkeeperError) as refused:
        DOORS[door](pond, "SELECT ? || ? || ? || ?", ["a"] * (MAX_PARAMETERS + 1))
    assert (refused.value.code, refused.value.details["limit"]) == ("parameter_invalid", "max_parameters")
