"""A real S3 server on this machine: `rclone serve s3` (a package of PyPI), on a free port, with its own keys."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.keeper import wait_until

KEY, SECRET = "ARCHIVEKEY", "archive-secret-of-the-tests"


@dataclass(frozen=True)
class Bucket:
    """A bucket, and what a process needs in its environment to use it."""

    target: str
    folder: Path
    port: int

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.port)


def environment(port: int) -> dict[str, str]:
    """Credentials and address, as any S3 client reads them."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }


@contextlib.contextmanager
def s3_server(folder: Path, port: int = 0, name: str = "archive") -> Iterator[Bucket]:
    """A server of the folder's subfolders as buckets, one of them made; ended after the block."""
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("rclone is not installed: `script/bootstrap dev` brings it")
    (folder / name).mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    command = [program, "serve", "s3", "--auth-key", f"{KEY},{SECRET}", "--addr", f"127.0.0.1:{port}", str(folder)]
    config = ["--config", str(folder.parent / "rclone.conf"), "--quiet"]
    server = subprocess.Popen([*command, *config], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: server.poll() is not None or _answers(port), timeout_s=60, what="the S3 server")
        assert server.poll() is None, "the S3 server ended at once"
        yield Bucket(f"s3://{name}/pond/keeper", folder / name, port)
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
