"""Which limits hold for a key: those of the server, its role, the database and the key itself, the tightest of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from pondkeeper.access.keys import Role
from pondkeeper.access.limits import Effective, Limits, limits_in, limits_of, tightest
from pondkeeper.errors import InvalidRequest, PondkeeperError, SettingInvalid
from pondkeeper.files.paths import is_database_name

if TYPE_CHECKING:
    from pondkeeper.access.keys import Key
    from pondkeeper.settings import Settings

MAX_KNOWN: Final = 10_000


class LimitBook:
    """The limits of a keeper's settings, and those of keys as they come."""

    def __init__(self, settings: Settings) -> None:
        readers, limits = settings.readers, settings.limits
        self._server = Limits(
            timeout_s=readers.timeout_s,
            max_rows=readers.max_rows,
            max_bytes=readers.max_bytes,
            concurrent=limits.concurrent or None,
            requests_per_s=limits.requests_per_s or None,
            max_statement_bytes=limits.max_statement_bytes,
            max_parameters=limits.max_parameters,
        )
        self._roles = _named("limits.roles", limits.roles, lambda name: name in tuple(Role))
        self._databases = _named("limits.databases", limits.databases, is_database_name)
        self._known: dict[tuple[str, str | None], tuple[Key, Effective]] = {}

    def own_timeout_s(self, key: Key, database: str) -> float | None:
        """The longest time of a write, as far as it is not the server's: that has a setting of its own."""
        effective = self.of(key, database)
        return None if effective.levels["timeout_s"] == "server" else effective.limits.timeout_s

    def of(self, key: Key, database: str | None = None) -> Effective:
        """What holds for this key; on that database, or (None) for the key as such."""
        place = (key.id, database)
        known = self._known.get(place)
        if known is not None and known[0] is key:
            return known[1]
        levels = {
            "server": self._server,
            "role": self._roles.get(key.role.value, Limits()),
            "database": self._databases.get(database or "", Limits()),
            "key": limits_of(key.limits),
        }
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        effective = tightest(levels)
        self._known[place] = (key, effective)
        return effective


def _named(setting: str, entries: Iterable[str], is_name: Callable[[str], bool]) -> dict[str, Limits]:
    """`reader timeout_s=5s max_rows=1000` → its limits by name. Raises SettingInvalid."""
    found: dict[str, Limits] = {}
    for entry in entries:
        name, *words = entry.split()
        try:
            if not is_name(name):
                raise InvalidRequest(f"{name[:80]!r} is none.")
            found[name] = limits_in(words)
        except PondkeeperError as error:
            raise SettingInvalid(
                f"`{setting}`: {error.message}",
                remedy='Write each entry as a name and its limits: "reader timeout_s=5s max_rows=1000".',
            ) from None
    return found
