"""A child that lives for a moment at the start of a keeper: it says what the engine has that nobody has judged."""

from __future__ import annotations

import socket
from typing import Any

from pondkeeper.engine import judged
from pondkeeper.workers.frames import Pipe


def main(pipe: Pipe, control: socket.socket, config: dict[str, Any]) -> None:  # noqa: ARG001  # Why: as every entry
    """Entry point, called by the template in the forked child."""
    pipe.send({"line": judged.line(), "unjudged": judged.unjudged()})
