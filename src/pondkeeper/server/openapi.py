"""The OpenAPI document: FastAPI's, with the shapes that msgspec decodes, and one shape for every error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from fastapi.openapi.utils import get_openapi

from pondkeeper import __version__
from pondkeeper.server import job_shapes, shapes
from pondkeeper.server.bodies import ExecuteBody, JobBody, NewKeyBody, PruneBody, QueryBody, RestoreBody, VerifyBody
from pondkeeper.server.fetching import BlocksBody, PagesBody
from pondkeeper.server.formats import CONTENT_TYPES
from pondkeeper.server.gate import OPEN_PATHS
from pondkeeper.server.load_shapes import LoadAnswer, LoadBody

if TYPE_CHECKING:
    from fastapi import FastAPI

REF: Final = "#/components/schemas/"
_BODIES: Final = (PagesBody, BlocksBody, QueryBody, ExecuteBody, NewKeyBody, VerifyBody, PruneBody, RestoreBody, JobBody, LoadBody)
_ANSWERS: Final = (
    shapes.QueryAnswer,
    shapes.WriteAnswer,
    shapes.IngestAnswer,
    shapes.Problem,
    shapes.RunningList,
    shapes.Cancelled,
    shapes.DatabaseList,
    shapes.DatabaseState,
    shapes.WaitingLine,
    shapes.PlaceInLine,
    shapes.WaitingWrite,
    shapes.TicketShown,
    shapes.TicketList,
    shapes.TicketAccepted,
    shapes.RejectsFile,
    shapes.RejectsList,
    shapes.SnapshotList,
    shapes.SnapshotEntry,
    shapes.SnapshotTaken,
    shapes.BackupList,
    shapes.BackupTaken,
    shapes.BackupVerified,
    shapes.RestoreAnswer,
    shapes.BackupsPruned,
    shapes.KeyList,
    shapes.KeyMade,
    shapes.KeyRevoked,
    shapes.Promoted,
    shapes.ReplicaList,
    job_shapes.RunShown,
    job_shapes.RunList,
    job_shapes.RunBrief,
    job_shapes.JobShown,
    job_shapes.JobList,
    job_shapes.Drift,
    job_shapes.DriftAccepted,
    LoadAnswer,
    shapes.Health,
)
_NO_SCHEMA: Final = {"type": "string", "format": "binary"}


def takes(shape: type[msgspec.Struct], **examples: Any) -> dict[str, Any]:
    """`openapi_extra` of a route that reads a body of this shape."""
    content: dict[str, Any] = {"schema": {"$ref": REF + shape.__name__}}
    content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def gives(
    shape: type[msgspec.Struct], description: str, status: int = 200, example: Any = None
) -> dict[int | str, Any]:
    """`responses` of a route that answers with this shape."""
    content: dict[str, Any] = {"schema": {"$ref": REF + shape.__name__}}
    if example is not None:
        content["example"] = example
    return {status: {"description": description, "content": {"application/json": content}}}


def gives_answer(example: Any) -> dict[int | str, Any]:
    """`responses` of a query: the answer in each of its formats, and the headers that go with it."""
    responses = gives(
        shapes.QueryAnswer, "The answer, in the format that Accept or `?format=` asks for.", example=example
    )
    for type_ in CONTENT_TYPES.values():
        responses[200]["content"].setdefault(type_, {"schema": _NO_SCHEMA})
    responses[200]["headers"] = {
        name: {"description": text, "schema": {"type": kind}} for name, kind, text in _ANSWER_HEADERS
    }
    return responses


_ANSWER_HEADERS: Final = (
    ("Pondkeeper-Query-Id", "string", "The id by which DELETE /v1/queries/{id} knows the query."),
    ("Pondkeeper-Version", "integer", "The version that answered."),
    ("Pondkeeper-Row-Count", "integer", "Rows of the answer; only where it was known before the head was sent."),
    ("Pondkeeper-Truncated", "boolean", "Whether a limit cut the answer; only where it was known in time."),
    ("Pondkeeper-Limit", "string", "The limit that cut it."),
    ("Pondkeeper-Replica-Lag-S", "number", "Of a replica: what was published at its primary until so long ago is in it."),
)


def document(app: FastAPI) -> dict[str, Any]:
    """The whole document."""
    found = get_openapi(title="Pondkeeper", version=__version__, description=_DESCRIPTION, routes=app.routes)
    _, schemas = msgspec.json.schema_components([*_BODIES, *_ANSWERS], ref_template=REF + "{name}")
    components = found.setdefault("components", {})
    components["schemas"] = dict(schemas)
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "pk_<id>_<secret>"}}
    for path, operations in found["paths"].items():
        for operation in operations.values():
            _finish(operation, is_open=path in OPEN_PATHS)
    return found


def _finish(operation: dict[str, Any], *, is_open: bool) -> None:
    """One shape for all errors, and the key that it takes."""
    operation["responses"].pop("422", None)
    problem = {"application/json": {"schema": {"$ref": REF + shapes.Problem.__name__}}}
    operation["responses"]["default"] = {"description": "What went wrong, and what to do.", "content": problem}
    if not is_open:
        operation["security"] = [{"key": []}]


_DESCRIPTION: Final = """\
A keeper of DuckDB databases: any number of readers on snapshots that are milliseconds old, writers in their turn.

Every request but the two health checks carries `Authorization: Bearer pk_…`. Every error has one shape,
`{"error": {"code", "message", "remedy", …}}`; a 503 says in `Retry-After` when to try again. An answer that breaks off,
or a CSV or NDJSON answer that a limit cuts after its head was sent, ends with an aborted connection: what arrives as
whole is whole.
"""
