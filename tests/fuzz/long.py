"""The long form of the HTTP fuzz: schemathesis over the OpenAPI document, stateful, as each role. Behind `script/fuzz`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.keeper import KeeperProcess

ROLES = ("reader", "writer", "admin")
LIMITS = ("--readers", "2", "--timeout", "500ms", "--write-timeout", "1s", "--write-wait", "1s")
ENVIRONMENT = {"PONDKEEPER_LIMITS_FAILED_LOGINS_PER_MIN": "0", "PONDKEEPER_INGEST_TIMEOUT_S": "2"}
NOT_NOW_IS_AN_ANSWER = '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", "503"]\n'
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def main(python: str, max_examples: str) -> int:
    """Fuzz a keeper of its own with the schemathesis of `python`; the number of roles that found something."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "pond.duckdb"
        with KeeperProcess(database, *LIMITS, environment=ENVIRONMENT) as keeper:
            keeper.client().execute("CREATE TABLE flights (carrier VARCHAR, origin VARCHAR, month INTEGER)")
            # Why now: an administrator who is fuzzed revokes keys, the keeper's first one among them.
            (Path(folder) / "openapi.json").write_text(_document(keeper))
            (Path(folder) / "schemathesis.toml").write_text(NOT_NOW_IS_AN_ANSWER)
            found = [_as_role(keeper, role, python, max_examples) for role in (*ROLES, "none")]
            assert keeper.is_ready()
            if any(found):
                print("\n".join(line for line in keeper.log().splitlines() if '"exception"' in line))
    return sum(map(bool, found))


def _as_role(keeper: KeeperProcess, role: str, python: str, max_examples: str) -> int:
    command = [python, "-m", "schemathesis.cli", "run", "--url", keeper.url, "--no-color", "--checks", CHECKS]
    command += ["--max-examples", max_examples, "--request-timeout", "30", "--suppress-health-check", "filter_too_much"]
    # Why not events: they do not end.
    command += ["--exclude-path", "/v1/events", "--phases", "coverage,fuzzing,stateful"]
    if role != "none":
        token = keeper.cli("key", "create", f"fuzz {role}", "--role", role).stdout.strip()
        command += ["--header", f"Authorization: Bearer {token}"]
    print(f"as {role}:", flush=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([*command, "openapi.json"], env=environment, cwd=keeper.target.parent, check=False).returncode


def _document(keeper: KeeperProcess) -> str:
    """The keeper's document."""
    with keeper.http() as http:
        return json.dumps(http.get("/openapi.json").json())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
