"""A person with a notebook open in the browser: what marimo's page asks of its server, without the page."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import connect

from tests.support.keeper import command_line, free_port, program_environment, wait_until

STARTS_WITHIN_S = 60.0
ANSWERS_WITHIN_S = 60.0


@contextmanager
def notebook_server(folder: Path, *arguments: str) -> Iterator[str]:
    """`pondkeeper notebook ARGUMENTS…` in that folder; the address that it prints, with its token."""
    log = folder / f"notebook-{secrets.token_hex(3)}.log"
    with log.open("wb") as output:
        command = command_line("notebook", *arguments, "--no-browser", "--port", str(free_port()))
        process = subprocess.Popen(
            command, cwd=folder, env=program_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield wait_until(lambda: _address(log, process), timeout_s=STARTS_WITHIN_S, what="the notebook's address")
    finally:
        process.terminate()
        process.wait(STARTS_WITHIN_S)


def _address(log: Path, process: subprocess.Popen[bytes]) -> str | None:
    said = log.read_text(errors="replace")
    assert process.poll() is None, f"the notebook ended:\n{said}"
    found = re.search(r"https?://\S*access_token=\S+", said)
    if found is None:
        return None
    with suppress(httpx.ConnectError):  # Why: an app's is printed before it listens
        httpx.get(found.group())
        return found.group()
    return None


class Visitor:
    """One browser with the notebook open. `outputs` are the cells' last outputs, by cell."""

    def __init__(self, address: str) -> None:
        self._open = ExitStack()
        self._http = self._open.enter_context(httpx.Client(follow_redirects=True, timeout=ANSWERS_WITHIN_S))
        page = self._http.get(address)
        page.raise_for_status()
        self._base = str(page.url).partition("?")[0].rstrip("/")
        token = re.search(r'"serverToken":\s*"([^"]+)"', page.text)
        self._session = f"s_{secrets.token_hex(3)}"
        self._headers = {"Marimo-Session-Id": self._session, "Marimo-Server-Token": token.group(1) if token else ""}
        self.outputs: dict[str, str] = {}

    def __enter__(self) -> Visitor:
        cookies = "; ".join(f"{name}={value}" for name, value in self._http.cookies.items())
        address = f"{self._base.replace('http', 'ws', 1)}/ws?session_id={self._session}"
        self._socket = self._open.enter_context(connect(address, additional_headers={"Cookie": cookies}, max_size=None))
        if not self._until("kernel-ready").get("auto_instantiated"):  # of an app it is
            self._post("instantiate", {"objectIds": [], "values": [], "autoRun": True})
        self._until("completed-run")
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def click(self, label: str) -> None:
        """Click on the button of that label, and wait until what follows from it is done."""
        for output in self.outputs.values():
            found = re.search(r"object-id='([^']+)'[^>]*><marimo-button", output)
            if found and label in output:
                self._post("set_ui_element_value", {"objectIds": [found.group(1)], "values": [1]})
                self._until("completed-run")
                return
        raise AssertionError(f"there is no button {label!r}: {self.outputs}")

    def find(self, pattern: str) -> str:
        """What the first group of the pattern is in an output."""
        found = next((match for output in self.outputs.values() if (match := re.search(pattern, output))), None)
        assert found, f"nothing looks like {pattern!r}: {self.outputs}"
        return found.group(1)

    def _post(self, what: str, body: dict[str, Any]) -> None:
        self._http.post(f"{self._base}/api/kernel/{what}", json=body, headers=self._headers).raise_for_status()

    def _until(self, operation: str) -> dict[str, Any]:
        while True:
            message = json.loads(self._socket.recv(timeout=ANSWERS_WITHIN_S))
            if message["op"] == "cell-op" and (output := message["data"].get("output")):
                shown = output.get("data")
                self.outputs[message["data"]["cell_id"]] = shown if isinstance(shown, str) else json.dumps(shown)
            if message["op"] == operation:
                return dict(message["data"])
