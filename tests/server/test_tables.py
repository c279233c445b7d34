"""A key for some tables over HTTP, with the real engine: across versions, in every format, and its control."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from tests.support.keeper import KeeperProcess

SECRET = "s3cret-of-payroll"


def test_a_key_for_some_tables_sees_these_in_every_version(tmp_path: Path) -> None:
    with KeeperProcess(tmp_path / "pond.duckdb", "--readers", "1") as keeper:
        keeper.client().execute(
            [
                "CREATE TABLE flights AS SELECT range AS id FROM range(5)",
                f"CREATE TABLE payroll AS SELECT '{SECRET}' AS who",
                "CREATE VIEW everybody AS SELECT who FROM payroll",
                "CREATE VIEW headcount AS SELECT count(*) AS heads FROM payroll",
            ]
        )
        made = keeper.cli("key", "create", "partner", "-t", "flights", "-t", "headcount", "-l", "max_rows=3", "--json")
        token = json.loads(made.stdout)["token"]
        plain = json.loads(keeper.cli("key", "create", "plain", "--json").stdout)["token"]
        for _ in range(3):
            version = keeper.client().execute("INSERT INTO flights VALUES (99)").version
            with httpx.Client(base_url=keeper.url, trust_env=False, timeout=60) as http:

                def ask(sql: str, token: str = token, at_least: int = version, http: httpx.Client = http, form: str = "json") -> httpx.Response:
                    headers = {"Authorization": f"Bearer {token}"}
                    return http.post(f"/v1/query?format={form}", json={"sql": sql, "at_least": at_least}, headers=headers)

                assert ask("SELECT count(*) > 5 FROM flights").json()["rows"] == [[True]]
                assert ask("FROM headcount").json()["rows"] == [[1]]
                assert ask("SELECT name FROM (SHOW TABLES) ORDER BY 1").json()["rows"] == [["flights"], ["headcount"]]
                cut = ask("FROM flights").json()
                assert (cut["truncated"], cut["limit"], cut["row_count"]) == (True, "max_rows", 3)
                for form in ("json", "csv", "ndjson", "arrow", "parquet"):
                    for sql in ("FROM payroll", "FROM everybody", "FROM flights, payroll", "SUMMARIZE payroll"):
                        refused = ask(sql, form=form)
                        assert refused.status_code == 403, refused.text
                        assert SECRET not in refused.text
                assert ask("FROM everybody", plain).json()["rows"] == [[SECRET]]
