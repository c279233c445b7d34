"""The page of the Python client: every block of code on it runs, on a real keeper."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.keeper import REPOSITORY, KeeperProcess

PAGE = REPOSITORY / "docs" / "reference" / "python-client.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_page_runs(keeper: KeeperProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks in order, with the URL and the key of a real keeper put in; nothing else is changed."""
    pytest.importorskip("pyarrow")
    client = keeper.local_client()
    client.execute(
        [
            "CREATE TABLE flights AS SELECT 'JFK' AS origin, 1 + range % 12 AS month, range AS minute FROM range(20000)",
            "CREATE TABLE notes (id INTEGER, text VARCHAR)",
            "CREATE TABLE accounts AS SELECT * FROM (VALUES (1, 100), (2, 0)) AS t(id, balance)",
        ]
    )
    client.take_snapshot()
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks():
        code = block.replace("http://127.0.0.1:8420", keeper.url).replace("pk_…", keeper.key)
        code = code.replace('".pondkeeper"', repr(str(keeper.home.root)))
        code = code.replace('"warehouse.duckdb"', repr(str(keeper.home.root)))
        # Why: the page assigns `client` twice; the first of them must be closed as well.
        code = code.replace("client = Client.local", "client.databases(); client.close(); client = Client.local")
        exec(compile(code, str(PAGE), "exec"), names)

    with closing(names["client"]) as found:  # also when an assertion fails: another test would be blamed for the socket
        assert len(blocks()) >= 4
        assert names["answer"].names == ["origin", "flights"]
        assert names["table"].num_rows == 20_000
        assert (tmp_path / "flights.parquet").read_bytes()[-4:] == b"PAR1"
        newest = found.execute("SELECT 1").version  # after all that the page wrote: a transfer, and a write with a key
        assert found.query("SELECT balance FROM accounts ORDER BY id", at_least=newest).rows == [[80], [10]]
