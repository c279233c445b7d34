"""The gallery of the Artemis example as a process of its own: the web server that downloads are tested against."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from tests.support.keeper import REPOSITORY, free_port, program_environment, wait_until

EXAMPLE = REPOSITORY / "examples" / "artemis"


@dataclass
class GalleryProcess:
    """A running gallery."""

    url: str

    def tally(self) -> dict[str, int]:
        """How often it has answered with each status."""
        found: dict[str, int] = httpx.get(f"{self.url}/tally", trust_env=False, timeout=30.0).json()
        return found

    def is_there(self) -> bool:
        try:
            self.tally()
        except httpx.HTTPError:
            return False
        return True


@contextmanager
def gallery(*options: str) -> Iterator[GalleryProcess]:
    """A gallery within the block, with options such as `--unwell 50`."""
    port = free_port()
    command = [sys.executable, str(EXAMPLE / "gallery.py"), "--port", str(port), *options]
    with subprocess.Popen(command, env=program_environment(), stderr=subprocess.DEVNULL) as process:
        try:
            running = GalleryProcess(f"http://127.0.0.1:{port}")
            wait_until(running.is_there, what="the gallery")
            yield running
        finally:
            process.kill()
