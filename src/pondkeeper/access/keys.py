"""Keys: who may come in, as what, and to which databases. This module blocks; the keeper goes through `keyring`."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pondkeeper.access.grants import Grants, grants_of, valid_tables
from pondkeeper.access.limits import limits_of
from pondkeeper.access.tokens import Token, new_token, parse_token
from pondkeeper.errors import InvalidRequest, KeyNameTaken, KeyNotFound
from pondkeeper.files.paths import is_database_name

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

    from pondkeeper.access.store import Store

EVERY_DATABASE = "*"
MAX_NAME = 100
MAX_DATABASES = 1000
FIRST_KEY_NAME = "admin"


class Role(StrEnum):
    """What a key may do; each role may do what the ones before it may."""

    READER = "reader"
    WRITER = "writer"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        return list(Role).index(self)


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret. Times are seconds since 1970 in UTC."""

    id: str
    name: str
    role: Role
    databases: tuple[str, ...]
    created_at: float
    expires_at: float | None = None
    last_used_at: float | None = None
    revoked_at: float | None = None
    tables: tuple[str, ...] | None = None
    limits: dict[str, float] | None = field(default=None, hash=False)

    @property
    def grants(self) -> Grants | None:
        """The schemas and tables that it may read; None for all."""
        return None if self.tables is None else grants_of(self.tables)

    @property
    def is_for_every_database(self) -> bool:
        return EVERY_DATABASE in self.databases

    def is_live(self, now: float) -> bool:
        """Whether it opens anything at that time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def to_wire(self) -> dict[str, Any]:
        """The key for JSON: times as ISO 8601, and `state`: live, expired or revoked."""
        return {
            "id": self.id,
            "name": self.name,
            "role": self.role.value,
            "databases": list(self.databases),
            "tables": None if self.tables is None else list(self.tables),
            "limits": dict(self.limits or {}),
            "state": self.state(time.time()),
            "created_at": _iso(self.created_at),
            "expires_at": _iso(self.expires_at),
            "last_used_at": _iso(self.last_used_at),
            "revoked_at": _iso(self.revoked_at),
        }

    def state(self, now: float) -> str:
        """live, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "live" if self.is_live(now) else "expired"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made, with the token that is shown this once."""

    key: Key
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Lock:
    """A key with the digest that its secret must have."""

    key: Key
    digest: bytes = field(repr=False)


class Keys:
    """The keys in a control.db."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(
        self,
        name: str,
        role: str = Role.READER,
        databases: Iterable[str] = (EVERY_DATABASE,),
        expires_at: float | None = None,
        tables: Iterable[str] | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> NewKey:
        """Make a key; its token is in the answer and nowhere else. Raises InvalidRequest or KeyNameTaken.

        `tables`: what it may read (`t`, `schema.t`, `schema.*`), for readers only. `limits`: as `limits_of` takes them.
        """
        now = time.time()
        text, token = new_token()
        key = Key(
            token.key_id,
            valid_name(name),
            valid_role(role),
            valid_databases(databases),
            now,
            valid_expiry(expires_at, now),
            tables=valid_tables(tables),
            limits=valid_limits(limits),
        )
        if key.tables is not None and key.role is not Role.READER:
            # Why: what a writer runs is not bound in a mirror, so that nothing would hold it to its tables.
            raise InvalidRequest("A key for some tables has the role reader.")
        with self._store.change() as connection:
            if any(other.is_live(now) for other in _named(connection, key.name)):
                raise KeyNameTaken(f"A live key named {key.name!r} exists already.")
            _insert(connection, key, token)
        return NewKey(key, text)

    def ensure_admin_key(self) -> str | None:
        """The token of a first admin key, when no key was ever made; else None.

        Not when all keys are revoked: that was somebody's will, and `pondkeeper key create` makes the next one.
        """
        with self._store.read() as connection:
            if _any_key(connection):
                return None
        text, token = new_token()
        key = Key(token.key_id, FIRST_KEY_NAME, Role.ADMIN, (EVERY_DATABASE,), time.time())
        with self._store.change() as connection:
            if _any_key(connection):
                return None  # Another process was first.
            _insert(connection, key, token)
        return text

    def all(self) -> list[Key]:
        """Every key ever made, the oldest first."""
        return [lock.key for lock in self.locks()]

    def locks(self) -> list[Lock]:
        """Every key with its digest, for the keyring."""
        with self._store.read() as connection:
            rows = connection.execute("SELECT * FROM keys ORDER BY created_at, id").fetchall()
        return [Lock(_key(row), row["digest"]) for row in rows]

    def revoke(self, reference: str) -> Key:
        """End a key, by id, by name, or by its whole token; at once. A revoked one stays as it is. Raises KeyNotFound."""
        now = time.time()
        with self._store.change() as connection:
            key = _find(connection, reference, now)
            connection.execute("UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now, key.id))
            return _key(connection.execute("SELECT * FROM keys WHERE id = ?", (key.id,)).fetchone())

    def note_uses(self, uses: Mapping[str, float]) -> None:
        """Write down when keys were last used: id → time."""
        # Why not marked: nobody's access depends on it, and a mark makes every keyring load the keys again.
        with self._store.change(marked=False) as connection:
            connection.executemany(
                "UPDATE keys SET last_used_at = max(coalesce(last_used_at, 0), ?) WHERE id = ?",
                [(used_at, key_id) for key_id, used_at in uses.items()],
            )


def _find(connection: sqlite3.Connection, reference: str, now: float) -> Key:
    if not reference.isprintable():  # Trap: bytes of a command line that are not UTF-8 arrive as surrogates.
        raise KeyNotFound
    token = parse_token(reference.strip())
    row = connection.execute("SELECT * FROM keys WHERE id = ?", (token.key_id if token else reference,)).fetchone()
    if row is not None:
        return _key(row)
    named = [key for key in _named(connection, reference) if key.revoked_at is None]
    for key in sorted(named, key=lambda key: key.is_live(now), reverse=True):
        return key
    raise KeyNotFound


def _named(connection: sqlite3.Connection, name: str) -> list[Key]:
    return [_key(row) for row in connection.execute("SELECT * FROM keys WHERE name = ?", (name,))]


def _any_key(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM keys LIMIT 1").fetchone() is not None


def _insert(connection: sqlite3.Connection, key: Key, token: Token) -> None:
    connection.execute(
        "INSERT INTO keys (id, name, digest, role, databases, created_at, expires_at, tables, limits) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(key.id, key.name, token.digest, key.role.value, ",".join(key.databases), key.created_at, key.expires_at),
            None if key.tables is None else json.dumps(key.tables),
            json.dumps(key.limits) if key.limits else None,
        ),
    )


def _key(row: sqlite3.Row) -> Key:
    return Key(
        id=row["id"],
        name=row["name"],
        role=Role(row["role"]),
        databases=tuple(row["databases"].split(",")),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
        revoked_at=row["revoked_at"],
        tables=None if row["tables"] is None else tuple(json.loads(row["tables"])),
        limits=None if row["limits"] is None else json.loads(row["limits"]),
    )


def valid_name(name: str) -> str:
    """A key's name: 1 to 100 printable characters, no blank at its ends, and not something like a token."""
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable() or name != name.strip():
        raise InvalidRequest(f"A key's name has 1 to {MAX_NAME} printable characters and no blank at its ends.")
    if name.startswith("pk_"):
        raise InvalidRequest("A key's name does not begin with pk_: that is how tokens begin.")
    return name


def valid_role(role: str) -> Role:
    """The role of that name."""
    try:
        return Role(role)
    except ValueError:
        raise InvalidRequest(f"A key's role is one of {', '.join(Role)}.") from None


def valid_databases(databases: Iterable[str]) -> tuple[str, ...]:
    """The databases of a key, each once: names, or only `*`. They need not exist yet."""
    names = tuple(dict.fromkeys([databases] if isinstance(databases, str) else databases))
    if EVERY_DATABASE in names:
        return (EVERY_DATABASE,)
    if not 1 <= len(names) <= MAX_DATABASES or not all(map(is_database_name, names)):
        raise InvalidRequest("A key's databases are names of databases, at least one, or `*` for every one.")
    return names


def valid_limits(limits: Mapping[str, Any] | None) -> dict[str, float] | None:
    """The limits of a key as numbers; None for none of its own."""
    return limits_of(limits).to_wire() or None


def valid_expiry(expires_at: float | None, now: float) -> float | None:
    """A time in the future, or None for never."""
    if expires_at is None:
        return None
    # Trap: NaN is not less than anything; written this way round it is refused.
    if not now < expires_at < datetime.max.replace(tzinfo=UTC).timestamp():
        raise InvalidRequest("A key's expiry lies in the future.")
    return float(expires_at)


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
