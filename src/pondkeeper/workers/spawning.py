"""The keeper's side of the template: start it, keep it alive, ask it for children."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from pondkeeper.errors import FenceMissing, PondkeeperError
from pondkeeper.workers import fence
from pondkeeper.workers.child import Child
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.walls import tell_missing

MAX_ANSWER_BYTES = 4096
SOCKET_BUFFER_BYTES = 1024 * 1024
START_TIMEOUT_S = 60.0
FORK_TIMEOUT_S = 10.0
_ATTEMPTS = 2
_KEPT_VARIABLES = ("PYTHON", "LD_", "LC_", "LANG", "TZ", "MALLOC_", "FIU_")


class TemplateFailed(PondkeeperError):
    """The process that forks the children could not be started."""

    code = "template_failed"
    http_status = 503


@dataclass(frozen=True)
class ChildSpec:
    """What to fork: `entry` is a module with `main(pipe, control, config)`.

    Trap: a child may open no files but the libraries and what its `fence` names; nothing is named by default.
    """

    name: str
    entry: str
    config: Mapping[str, Any]
    limits: Mapping[str, int] = field(default_factory=dict)
    oom_score_adj: int = 0
    fence: Fence = field(default_factory=Fence)


class Template:
    """The template process; started when first needed, and again when it died.

    `fences_files`: whether its children can open no files but those of their fence, known once the first was forked.
    """

    def __init__(self, modules: Sequence[str], fence_mode: str = "auto") -> None:
        self._modules = list(modules)
        self._fence_mode = fence_mode
        self._has_told = False
        self.fences_files = False
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._lock = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def spawn(self, spec: ChildSpec) -> Child:
        """Fork a child as `spec` says. Raises TemplateFailed."""
        for _ in range(_ATTEMPTS):  # a template that died since its last child is started anew once
            # Why new sockets each time: a template may die after the fork and before its answer, and two children
            # must never share a pipe. The one that nobody knows of finds its sockets closed, and ends.
            keeper_pipe, child_pipe = _pair(socket.SOCK_STREAM)
            keeper_control, child_control = _pair(socket.SOCK_STREAM)
            child = None
            try:
                with child_pipe, child_control:
                    pid = await self._request(spec, [child_pipe.fileno(), child_control.fileno()])
                if pid is not None:
                    child = Child(spec.name, pid, keeper_pipe, keeper_control)
            finally:
                if child is None:
                    keeper_pipe.close()
                    keeper_control.close()
            if child is not None:
                return await _connected(child, keeper_pipe)
        raise TemplateFailed

    async def stop(self) -> None:
        """End the template; children live on until they are closed or the keeper ends."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None

    async def _request(self, spec: ChildSpec, descriptors: list[int]) -> int | None:
        """The pid of the new child; None when the template died or hung, and was ended."""
        request = msgspec.json.encode(
            {
                "name": spec.name,
                "entry": spec.entry,
                "config": spec.config,
                "limits": spec.limits,
                "oom_score_adj": spec.oom_score_adj,
                "fence": asdict(spec.fence),
            }
        )
        async with self._lock:
            connection = await self._started()
            try:
                socket.send_fds(connection, [request], descriptors)
                async with asyncio.timeout(FORK_TIMEOUT_S):
                    answer = await _receive(connection)
            except (ConnectionError, TimeoutError):
                answer = b""
            if answer:
                return int(msgspec.json.decode(answer)["pid"])
            await self.stop()
        return None

    async def _started(self) -> socket.socket:
        if self._socket is None:
            fence.adopt_orphans()
            ours, theirs = _pair(socket.SOCK_SEQPACKET)
            command = [sys.executable, "-m", "pondkeeper.workers.template"]
            arguments = [str(theirs.fileno()), str(os.getpid()), self._fence_mode, *self._modules]
            with theirs:
                self._process = subprocess.Popen(  # noqa: ASYNC220  Why: a fork of the small keeper takes 2 ms, once.
                    [*command, *arguments],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=sys.stderr,
                    env=_environment(),
                )
            self._socket = ours
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    ready = await _receive(ours)
            except TimeoutError as error:
                await self.stop()
                raise TemplateFailed(f"The template did not start within {START_TIMEOUT_S:.0f} s.") from error
            if not ready:
                await self.stop()
                raise TemplateFailed
            told = msgspec.json.decode(ready)
            self.fences_files = "files" in told["up"]
            await self._judge_walls(told["walls"])
        return self._socket

    async def _judge_walls(self, found: dict[str, str]) -> None:
        """Say once which walls are missing; in strict mode go no further. Raises FenceMissing."""
        missing = {name: why for name, why in found.items() if why}
        if missing and self._fence_mode == "strict":
            await self.stop()
            named = "; ".join(f"{name} ({why})" for name, why in missing.items())
            raise FenceMissing(f"This machine lacks walls that fence.mode = strict asks for: {named}.")
        if not self._has_told:
            self._has_told = True
            tell_missing(self._fence_mode, missing)


def _environment() -> dict[str, str]:
    """What Python and the loader need of ours, and no more.

    Trap: a child's `/proc/<pid>/environ` shows what the template was started with, whatever it has cleared since.
    """
    return {name: value for name, value in os.environ.items() if name.startswith(_KEPT_VARIABLES)}


async def _connected(child: Child, pipe: socket.socket) -> Child:
    try:
        await asyncio.get_running_loop().create_connection(lambda: child, sock=pipe)
    except BaseException:  # Why: whoever asked for the child does not get it, and nobody else would end it.
        pipe.close()
        child.kill()
        raise
    return child


async def _receive(connection: socket.socket) -> bytes:
    try:
        return await asyncio.get_running_loop().sock_recv(connection, MAX_ANSWER_BYTES)
    except ConnectionError:
        return b""


def _pair(kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
    """A socket pair: our end non-blocking, the child's end blocking."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.setblocking(False)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    return ours, theirs
