"""What DuckDB's exceptions mean to a caller: `translate` turns any of them into a `PondkeeperError`.

DuckDB's class decides, its message where one class covers several meanings. Arrow wraps a fault of a running query into
its own exceptions and keeps only the text, so the name at the head of the message ("Conversion Error: …") counts as the
class does. Paths of the server never stand in `message`; the whole text goes to `private`.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import duckdb

from pondkeeper.errors import (
    DatabaseBusy,
    DatabaseEncrypted,
    DatabaseReadOnly,
    DatabaseTooNew,
    DatabaseUnavailable,
    DatabaseUnreadable,
    DiskFull,
    OutOfMemory,
    ParameterInvalid,
    PondkeeperError,
    QueryCancelled,
    SqlInvalid,
    StatementFailed,
    StatementNotAllowed,
)

_HOLDER = re.compile(r"Conflicting lock is held in (?P<program>.*?) \(PID (?P<pid>\d+)\)", re.DOTALL)
_HEAD = re.compile(r"\A(?P<kind>[A-Za-z][A-Za-z -]{2,30}?) Error: ")
_PATH = re.compile(r"(?<![\w/])/(?:[\w.@+~-]+/)+[\w.@+~-]*")

# Why: faults of the machine or of the file come as IO, Fatal, Serialization or Internal errors alike; only the text
# tells them apart. The first pattern that fits decides.
_BY_TEXT: Final[tuple[tuple[str, type[PondkeeperError]], ...]] = (
    (r"Could not set lock on file|Conflicting lock", DatabaseBusy),
    (r"No space left on device|max_temp_directory_size.*disk space|disk is full", DiskFull),
    (r"with version number \d+, but we can only read|newer version of DuckDB|newer DuckDB version", DatabaseTooNew),
    (r"encrypted|encryption key|wrong (?:encryption )?key", DatabaseEncrypted),
    (r"Read-only file system|Permission denied|not writable|opened in read-only mode", DatabaseReadOnly),
    (
        r"not a valid DuckDB database|checksum|[Cc]orrupt|file is too small|[Cc]ould not read enough bytes|magic bytes",
        DatabaseUnreadable,
    ),
    (
        r"Failed to load metadata|reading (?:past|beyond) (?:the )?end|Could not read all|WAL file|replaying WAL|This WAL was created",
        DatabaseUnreadable,
    ),
)
_BY_KIND: Final[dict[str, type[PondkeeperError]]] = {
    "parser": SqlInvalid,
    "syntax": SqlInvalid,
    "binder": SqlInvalid,
    "catalog": SqlInvalid,
    "not implemented": SqlInvalid,
    "permission": StatementNotAllowed,
    "out of memory": OutOfMemory,
    "interrupt": QueryCancelled,
}
_MACHINE: Final = frozenset({"io", "fatal", "internal", "serialization", "http", "connection"})
_FATAL: Final = frozenset({"fatal", "internal"})
_TEMP_FULL = re.compile(r"max_temp_directory_size|temp_directory|failed to offload", re.IGNORECASE)
_PARAMETER = re.compile(
    r"Values were not provided for the following prepared statement parameters"
    r"|Parameter argument/count mismatch|Invalid number of parameters|excess parameters|prepared statement parameters",
    re.IGNORECASE,
)
_COMMIT_IO = re.compile(r"Failed to commit: Could not")
_COMMIT_FULL = re.compile(r"Failed to commit: Could not write file.*No space left on device", re.DOTALL)
_REPLAY = re.compile(r"\A[A-Za-z -]+ Error: Failure while replaying WAL file")  # whatever kind it is said to be of
_LOCKED_AWAY = re.compile(r"Cannot open encrypted database")  # 1.5 calls it a catalog error
_WRITES = re.compile(
    r"read-only mode|read-only transaction|attached in read-only|configuration has been locked", re.IGNORECASE
)


def kind_of(error: BaseException) -> str:
    """DuckDB's name for the fault ("binder", "out of memory", "io" …), from the class or the head of the message."""
    head = _HEAD.match(str(error))
    if head:
        return _spelled(head["kind"])
    name = type(error).__name__.removesuffix("Exception").removesuffix("Error")
    return _spelled(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))


def _spelled(kind: str) -> str:
    kind = kind.lower().strip()
    return {"transactioncontext": "transaction", "missing extension": "catalog"}.get(kind, kind)


def scrubbed(text: str) -> str:
    """The text without the server's paths: of each only the file's name remains."""
    return _PATH.sub(lambda found: "…/" + found[0].rstrip("/").rpartition("/")[2], text)


def _message(error: BaseException, kind: str) -> str:
    """DuckDB's own words; those about the user's SQL keep everything, those about files lose their folders."""
    text = str(error).strip()
    is_of_files = kind in _MACHINE or isinstance(error, OSError) or _COMMIT_IO.search(text) or _REPLAY.search(text)
    if is_of_files or kind in ("permission", "out of memory", "invalid input"):
        # Why the first paragraph: what follows are links and advice for people who have the file in their own hands.
        return scrubbed(text.split("\n\n")[0])
    return text


def _told(found: type[PondkeeperError], error: BaseException, kind: str) -> str | None:
    """What happened, in DuckDB's words; of an encrypted file in ours, because DuckDB's name its path."""
    return None if found is DatabaseEncrypted else _message(error, kind)


def _busy(error: BaseException) -> DatabaseBusy:
    holder = _HOLDER.search(str(error))
    if holder is None:
        return DatabaseBusy("Another program has the database open.", private=str(error))
    program, pid = holder["program"].strip().rpartition("/")[2], int(holder["pid"])
    return DatabaseBusy(
        f"The program {program} (PID {pid}) has the database open.",
        private=str(error),
        holder_pid=pid,
        holder_program=program,
    )


def _class_of(kind: str, text: str) -> type[PondkeeperError]:
    if _LOCKED_AWAY.search(text):
        return DatabaseEncrypted
    if _COMMIT_FULL.search(text):
        return DiskFull
    if _PARAMETER.search(text):
        return ParameterInvalid
    if kind == "out of memory":
        return OutOfMemory
    if kind == "io" and _TEMP_FULL.search(text):
        return OutOfMemory
    if _WRITES.search(text) and kind not in ("io", "fatal"):
        return StatementNotAllowed
    if kind in _MACHINE or not kind or _REPLAY.search(text):  # Why not: 2.0 raises its bare Error for a corrupt block.
        otherwise = DatabaseUnavailable if kind else StatementFailed
        return next((found for pattern, found in _BY_TEXT if re.search(pattern, text)), otherwise)
    return _BY_KIND.get(kind, StatementFailed)


def translate(error: BaseException) -> PondkeeperError:
    """What `error` means to a caller; `fatal` is set where the process must end before it serves again."""
    if isinstance(error, PondkeeperError):
        return error
    text, kind = str(error), kind_of(error)
    if isinstance(error, MemoryError):
        return OutOfMemory(private=text)
    if isinstance(error, OSError) and error.errno is not None:
        return _of_system(error)
    if type(error).__module__.startswith("pyarrow") and not _HEAD.match(text):
        return StatementFailed(f"This format cannot hold the answer: {scrubbed(text)}", private=text)
    if not isinstance(error, duckdb.Error) and not _HEAD.match(text):
        return PondkeeperError(f"The engine failed: {type(error).__name__}.", private=f"{type(error).__name__}: {text}")
    found = _class_of(kind, text)
    translated = _busy(error) if found is DatabaseBusy else found(_told(found, error, kind), private=text)
    # Trap: after a full disk and after any internal error DuckDB refuses everything until the file is opened again.
    translated.fatal = kind in _FATAL or "has been invalidated" in text or _COMMIT_IO.search(text) is not None
    return translated


def _of_system(error: OSError) -> PondkeeperError:
    private = str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(private=private)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DatabaseReadOnly(private=private)
    return DatabaseUnavailable(f"The system refused: {error.strerror}.", private=private)


@contextmanager
def translated() -> Iterator[None]:
    """Whatever the engine raises inside leaves as a `PondkeeperError`."""
    try:
        yield
    except PondkeeperError:
        raise
    except Exception as error:  # Why: DuckDB and Arrow raise many classes here, and each of them has a translation.
        raise translate(error) from error
