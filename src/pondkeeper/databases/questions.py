"""A request to read as the question that a reader gets."""

from __future__ import annotations

from typing import Any

from pondkeeper.databases.requests import ReadRequest
from pondkeeper.databases.running import Running
from pondkeeper.readers.asking import Question
from pondkeeper.readers.reader import Resources


def question_of(entry: Running, request: ReadRequest, deadline: float, most: Resources) -> Question:
    """What is asked of a reader; of memory and threads at most what any reader has."""
    message: dict[str, Any] = {
        "sql": request.sql,
        "parameters": request.parameters,
        "format": request.format,
        "max_rows": request.max_rows,
        "max_bytes": request.max_bytes,
    }
    if request.grants is not None:
        message["grants"] = request.grants
    resources = None
    if request.memory_limit_bytes or request.threads:
        resources = Resources(
            min(request.memory_limit_bytes or most.memory_limit_bytes, most.memory_limit_bytes),
            min(request.threads or most.threads, most.threads),
        )
    return Question(entry.query_id, message, deadline, request.timeout_s, entry.has_its_turn, resources, request.key_id or "")
