"""What an ingest is asked to do, from its path, its query string and its Content-Type."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote

from pondkeeper.databases.requests import IngestRequest
from pondkeeper.engine.names import table_name
from pondkeeper.errors import InvalidRequest, MediaTypeUnsupported
from pondkeeper.server.scopes import header
from pondkeeper.settings.values import parse_duration

if TYPE_CHECKING:
    from starlette.types import Scope

MODES: Final = ("append", "upsert", "replace")
WAITS: Final = ("commit", "accepted")
ON_ERRORS: Final = ("abort", "reject")
PRIORITIES: Final = ("interactive", "normal", "background")
FORMATS: Final = ("ndjson", "json", "csv", "arrow", "parquet")
CONTENT_TYPES: Final = {
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/x-jsonlines": "ndjson",
    "application/json": "json",
    "text/csv": "csv",
    "application/csv": "csv",
    "text/tab-separated-values": "csv",
    "application/vnd.apache.arrow.stream": "arrow",
    "application/vnd.apache.arrow.file": "arrow",
    "application/vnd.apache.parquet": "parquet",
    "application/x-parquet": "parquet",
}
_PARAMETERS: Final = (
    *("mode", "key", "create", "evolve", "on_error", "wait", "priority", "timeout_s", "format", "delimiter", "header"),
)
_UTF8: Final = frozenset({"utf-8", "utf8", "us-ascii"})


@dataclass(frozen=True)
class IngestOptions:
    """The options of one ingest; `timeout_s` is what the caller asks for, if anything."""

    schema: str
    table: str
    format: str
    mode: str = "append"
    keys: tuple[str, ...] = ()
    create: bool = False
    evolve: bool = False
    on_error: str = "abort"
    wait: str = "commit"
    priority: str = "normal"
    timeout_s: float | None = None
    delimiter: str = ","
    has_header: bool = True

    @classmethod
    def of(cls, scope: Scope) -> IngestOptions:
        """The options of a request. Raises InvalidRequest or MediaTypeUnsupported."""
        given = _parameters(scope["query_string"])
        format_, defaults = _format(header(scope, b"content-type"), given.get("format"))
        schema, table = table_name(_raw_table(scope))
        options = cls(
            schema,
            table,
            format_,
            mode=_one_of(given, "mode", MODES),
            keys=_keys(given.get("key")),
            create=_flag(given, "create", default=False),
            evolve=_flag(given, "evolve", default=False),
            on_error=_one_of(given, "on_error", ON_ERRORS),
            wait=_one_of(given, "wait", WAITS),
            priority=_one_of(given, "priority", PRIORITIES, default="normal"),
            timeout_s=_seconds(given.get("timeout_s")),
            delimiter=_delimiter(given.get("delimiter", defaults["delimiter"])),
            has_header=_flag(given, "header", default=defaults["header"] == "present"),
        )
        if options.keys and options.mode != "upsert":
            raise InvalidRequest("`key` goes with mode=upsert only.")
        return options

    def request(self, body: Path, timeout_s: float, **who: Any) -> IngestRequest:
        """The ingest of this body."""
        return IngestRequest(
            schema=self.schema,
            table=self.table,
            format=self.format,
            body=body,
            mode=self.mode,
            keys=self.keys,
            create=self.create,
            evolve=self.evolve,
            on_error=self.on_error,
            timeout_s=timeout_s,
            priority=self.priority,
            delimiter=self.delimiter,
            has_header=self.has_header,
            **who,
        )


def _raw_table(scope: Scope) -> str:
    """The table as the path names it. Why from the raw path: a name may hold a slash, as %2F."""
    try:
        return unquote(scope["raw_path"].split(b"/")[-2].decode("ascii"), errors="strict")
    except (UnicodeDecodeError, IndexError):
        raise InvalidRequest("The name of the table in the path is not UTF-8.") from None


def _parameters(query_string: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=50)
    except (UnicodeDecodeError, ValueError):
        raise InvalidRequest("The query string is not percent-encoded UTF-8.") from None
    for name, _ in pairs:
        if name not in _PARAMETERS:
            near = difflib.get_close_matches(name[:50], _PARAMETERS, n=1)
            hint = f" Was `{near[0]}` meant?" if near else ""
            raise InvalidRequest(f"There is no parameter {name[:50]!r}.{hint}", remedy=f"Use {', '.join(_PARAMETERS)}.")
    if len({name for name, _ in pairs}) < len(pairs):
        raise InvalidRequest("A parameter stands twice in the query string.")
    return dict(pairs)


def _format(content_type: bytes | None, named: str | None) -> tuple[str, dict[str, str]]:
    """The format of the body, and what its media type says of delimiter and header."""
    kind, *rest = (content_type or b"").decode("latin-1").lower().split(";")
    kind = kind.strip()
    options = dict(option.strip().partition("=")[::2] for option in rest)
    defaults = {
        "delimiter": "\t" if kind == "text/tab-separated-values" else ",",
        "header": options.get("header", "present").strip('" '),
    }
    if options.get("charset", "utf-8").strip('" ') not in _UTF8:
        raise MediaTypeUnsupported("Texts are read as UTF-8 only.", remedy="Send the body as UTF-8.")
    if named is not None:
        if named not in FORMATS:
            raise InvalidRequest(f"There is no format {named[:40]!r}; there are {', '.join(FORMATS)}.")
        return named, defaults
    if kind not in CONTENT_TYPES:
        said = f"Rows cannot be read from {kind[:100]!r}." if kind else "The request does not say what its body is."
        raise MediaTypeUnsupported(said, remedy=_KNOWN_TYPES, supported=list(CONTENT_TYPES))
    return CONTENT_TYPES[kind], defaults


def _one_of(given: dict[str, str], name: str, choices: tuple[str, ...], default: str | None = None) -> str:
    value = given.get(name, default or choices[0])
    if value not in choices:
        raise InvalidRequest(f"`{name}` is one of {', '.join(choices)}, not {value[:40]!r}.")
    return value


def _flag(given: dict[str, str], name: str, *, default: bool) -> bool:
    value = given.get(name, "true" if default else "false").lower()
    if value not in ("true", "false", "1", "0", ""):
        raise InvalidRequest(f"`{name}` is true or false, not {value[:40]!r}.")
    return value in ("true", "1", "")


def _keys(value: str | None) -> tuple[str, ...]:
    """Names between commas; one that has a comma in it in double quotes."""
    if value is None:
        return ()
    keys = tuple(key.replace('""', '"') if quoted else key for quoted, key in _split(value))
    if not all(keys):
        raise InvalidRequest("`key` is a list of column names with commas between.")
    return keys


def _split(value: str) -> list[tuple[bool, str]]:
    parts = re.findall(r'\s*(?:"((?:[^"]|"")*)"|([^,"]*?))\s*(?:,|\Z)', value)
    # Why without the last: at the end of the text the pattern fits once more, on nothing.
    return [(bool(quoted), quoted or plain) for quoted, plain in (parts[:-1] if len(parts) > 1 else parts)]


def _seconds(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = parse_duration(value)
    except (ValueError, OverflowError):
        seconds = 0.0
    if not seconds > 0:
        raise InvalidRequest(f"`timeout_s` is a number of seconds, not {value[:40]!r}.")
    return seconds


def _delimiter(value: str) -> str:
    value = {"tab": "\t", "\\t": "\t"}.get(value, value)
    if len(value) != 1 or not value.isascii() or value in '"\r\n\0':
        raise InvalidRequest("`delimiter` is one ASCII character, or `tab`.")
    return value


_KNOWN_TYPES: Final = (
    "Send Content-Type: application/x-ndjson, application/json, text/csv, application/vnd.apache.arrow.stream or "
    "application/vnd.apache.parquet; or add format=ndjson, json, csv, arrow or parquet."
)
