"""Request bodies: their shapes, and how raw bytes become one or a clear error."""

from __future__ import annotations

import difflib
import math
import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from pondkeeper.errors import BodyTooLarge, InvalidRequest, MediaTypeUnsupported
from pondkeeper.server.arriving import ARRIVING
from pondkeeper.server.exchange import ClientGone
from pondkeeper.server.scopes import header
from pondkeeper.settings.values import parse_size
from pondkeeper.snapshots.holding import Wanted

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope

    from pondkeeper.server.arriving import Share

MAX_STATEMENTS: Final = 10_000
T = TypeVar("T", bound=Struct)

Size = Annotated[int | str, Meta(description='Bytes, or a size such as "512MB".', examples=["512MB", 1048576])]
Parameters = Annotated[
    list[Any] | dict[str, Any] | None,
    Meta(description="A list for ? and $1 placeholders, an object for $name placeholders.", examples=[[2013, "JFK"]]),
]
Sql = Annotated[str, Meta(min_length=1, description="The text of one statement.")]
Seconds = Annotated[float, Meta(gt=0)]


class Limits(Struct, forbid_unknown_fields=True, frozen=True):
    """The most that a query may take. The server's own limits apply too: the tightest wins."""

    timeout_s: Seconds | None = None
    max_rows: Annotated[int, Meta(ge=1)] | None = None
    max_bytes: Size | None = None
    memory: Size | None = None
    threads: Annotated[int, Meta(ge=1)] | None = None


class QueryBody(Struct, forbid_unknown_fields=True, frozen=True):
    """One reading statement."""

    sql: Annotated[str, Meta(min_length=1, description="The statement.", examples=["SELECT count(*) FROM flights"])]
    parameters: Parameters = None
    limits: Limits | None = None
    at_least: (
        Annotated[int, Meta(ge=0, description="Wait for this version and answer from it or a newer one.")] | None
    ) = None


class Statement(Struct, forbid_unknown_fields=True, frozen=True):
    """One of the statements of an atomic list."""

    sql: Sql
    parameters: Parameters = None


class WriteLimits(Struct, forbid_unknown_fields=True, frozen=True):
    """The most that a write may take; the server's own limits apply too."""

    timeout_s: Annotated[float, Meta(gt=0, description="From its turn on.")] | None = None
    wait_s: Annotated[float, Meta(gt=0, description="For its turn to come.")] | None = None


class ExecuteBody(Struct, forbid_unknown_fields=True, frozen=True):
    """One writing statement (`sql`), or several that are committed together or not at all (`statements`)."""

    sql: Sql | None = None
    parameters: Parameters = None
    statements: Annotated[list[Statement], Meta(min_length=1, max_length=MAX_STATEMENTS)] | None = None
    limits: WriteLimits | None = None
    priority: Annotated[
        Literal["interactive", "normal", "background"],
        Meta(description="Whose turn it is sooner; each gets its share of the turns, so that none waits for ever."),
    ] = "interactive"

    def in_order(self) -> list[tuple[str, list[Any] | dict[str, Any] | None]]:
        """The statements with their parameters. Raises InvalidRequest unless there is one `sql` or one list."""
        if (self.sql is None) == (self.statements is None):
            raise InvalidRequest("The body has either `sql` or `statements`.")
        if self.sql is not None:
            return [(self.sql, self.parameters)]
        if self.parameters is not None:
            raise InvalidRequest("The parameters belong to each of the `statements`, not beside them.")
        return [(statement.sql, statement.parameters) for statement in self.statements or ()]


class NewKeyBody(Struct, forbid_unknown_fields=True, frozen=True):
    """A key to make; `tables` for a reader of these only: `table`, `schema.table` or `schema.*`."""

    name: str
    role: str = "reader"
    databases: list[str] = msgspec.field(default_factory=lambda: ["*"])
    expires_at: Annotated[float, Meta(description="Seconds since 1970; without it the key does not end.")] | None = None
    tables: list[str] | None = None
    limits: (
        Annotated[dict[str, float | str], Meta(description='Limits of its own, such as {"timeout_s": 5, "memory": "1GB"}.')]
        | None
    ) = None


class RestoreBody(Struct, forbid_unknown_fields=True, frozen=True):
    """What a database is to become again: a version, or what it was at a time; or what it was before the last restore."""

    version: Annotated[int, Meta(ge=1)] | None = None
    at: Annotated[datetime, Meta(tz=True, description="With its zone: 2026-11-20T14:03:07Z.")] | None = None
    undo: bool = False

    def wanted(self) -> Wanted:
        """The version or the time."""
        return Wanted(self.version, self.at)

    def __post_init__(self) -> None:
        if (self.version is not None) + (self.at is not None) + self.undo != 1:
            raise ValueError("Give one of `version`, `at` and `undo`")

    def describe(self) -> str:
        """For the audit."""
        return "UNDO" if self.undo else f"VERSION {self.version}" if self.version is not None else f"AT {self.at}"


def size_bytes(size: int | str | None, name: str) -> int | None:
    """The bytes of a size in a request. Raises InvalidRequest naming the limit."""
    if size is None:
        return None
    try:
        found = parse_size(size) if isinstance(size, str) else size
    except (ValueError, OverflowError):
        found = 0
    if found <= 0:
        raise InvalidRequest(f'`limits.{name}` is a number of bytes or a size such as "512MB".')
    return found


class VerifyBody(Struct, forbid_unknown_fields=True, frozen=True):
    """Which archived version is to be checked; the newest when none is named."""

    version: Annotated[int, Meta(ge=1)] | None = None


class PruneBody(Struct, forbid_unknown_fields=True, frozen=True):
    """What is to be pruned: everything that the settings let go."""

    dry_run: Annotated[bool, Meta(description="Only say which versions would go.")] = False


class JobBody(Struct, forbid_unknown_fields=True, frozen=True):
    """How a job is to stand."""

    enabled: Annotated[bool, Meta(description="Whether it is due at its times and run after others.")]


class Decoder(Generic[T]):
    """Decodes bodies of one shape."""

    def __init__(self, shape: type[T]) -> None:
        self._shape = shape
        self._decoder = msgspec.json.Decoder(shape)

    async def read(self, scope: Scope, receive: Receive, max_bytes: int) -> T:
        """The body of the request. Raises InvalidRequest, BodyTooLarge or MediaTypeUnsupported."""
        check_content_encoding(scope)
        return self.decode(await read_body(scope, receive, max_bytes))

    def decode(self, body: bytes) -> T:
        """The body of these bytes. Raises InvalidRequest."""
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"{_readable(str(error))}{self._nearest(str(error))}") from None
        except msgspec.DecodeError as error:
            raise InvalidRequest(_readable(str(error)) if body else "The request has no body.") from None
        except UnicodeDecodeError:
            raise InvalidRequest("The body is not valid UTF-8.") from None
        except RecursionError:
            raise InvalidRequest("The body is nested too deeply.") from None

    def _nearest(self, message: str) -> str:
        """What an unknown field was perhaps meant to be."""
        unknown = re.search(r"unknown field `([^`]{1,100})`", message)
        near = difflib.get_close_matches(unknown[1], _field_names(self._shape), n=1) if unknown else []
        return f" Was `{near[0]}` meant?" if near else ""


def _field_names(shape: type[Struct]) -> list[str]:
    nested = {QueryBody: Limits, ExecuteBody: Statement}.get(shape)
    return [*shape.__struct_fields__, *(nested.__struct_fields__ if nested else ())]


def _readable(message: str) -> str:
    """msgspec's message as a sentence: `$.sql` is the field as its documentation writes it."""
    if message.startswith("Input data was truncated"):
        return "The body is not JSON: it ends too early."
    return message.replace("JSON is malformed", "The body is not JSON").rstrip(".") + "."


def check_content_encoding(scope: Scope) -> None:
    """Refuse what would have to be unpacked. Why no look at Content-Type: `curl -d` calls everything a form.

    A web page cannot misuse that: what it may send unasked carries no Authorization header, and is refused before.
    """
    if header(scope, b"content-encoding") not in (None, b"identity"):
        raise MediaTypeUnsupported("Compressed request bodies are not understood.")


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """The whole body. Raises BodyTooLarge, before anything is read where Content-Length tells; or QueueFull."""
    announced = header(scope, b"content-length")
    if announced is not None and int(announced) > max_bytes:
        raise BodyTooLarge(_too_large(max_bytes), max_bytes=max_bytes)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        return _within(message.get("body", b""), max_bytes)
    with ARRIVING.share(max_bytes) as share:
        return await _in_parts(message, receive, max_bytes, share)


def _within(body: bytes, max_bytes: int) -> bytes:
    if len(body) > max_bytes:
        raise BodyTooLarge(_too_large(max_bytes), max_bytes=max_bytes)
    return body


async def _in_parts(message: Message, receive: Receive, max_bytes: int, share: Share) -> bytes:
    parts: list[bytes] = []
    left = max_bytes
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        part: bytes = message.get("body", b"")
        left -= len(part)
        if left < 0:
            raise BodyTooLarge(_too_large(max_bytes), max_bytes=max_bytes)
        share.grow(len(part))
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
        message = await receive()


def _too_large(max_bytes: int) -> str:
    return f"The body is larger than {max_bytes:,} bytes."


def tightest(wanted: float | None, allowed: float) -> float:
    """The smaller of what the caller asks for and what the server allows."""
    return allowed if wanted is None or math.isnan(wanted) else min(wanted, allowed)
