"""A keeper of replicas: what it follows, which databases that has, and the promotion of one."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any, Final

import structlog

from pondkeeper.archive.history import databases as databases_in
from pondkeeper.archive.place import place_of
from pondkeeper.archive.replica.database import Replica, ReplicaConfig
from pondkeeper.archive.replica.following import Source
from pondkeeper.archive.replica.origin import Keeper, databases_of, is_keeper, open_to_read, read_key
from pondkeeper.archive.replica.promotion import Promoted, promote, was_promoted
from pondkeeper.databases.database import Database
from pondkeeper.databases.registry import Registry
from pondkeeper.errors import (
    ArchiveUnavailable,
    DatabaseUnavailable,
    PondkeeperError,
    PrimaryUnreachable,
    PromotionRefused,
    SettingInvalid,
)
from pondkeeper.files.durable import make_folder, write_atomic
from pondkeeper.files.paths import SUFFIX, DatabasePaths, Home, is_database_name
from pondkeeper.settings import ArchiveSettings, ReplicaSettings, Settings

ASK_AGAIN_S: Final = 2.0
_log = structlog.get_logger(__name__)


def source_of(settings: ReplicaSettings, home: Home, key: str | None) -> Source:
    """What the settings name. `key`: the API key, where no file has it. Raises SettingInvalid, RequestRefused."""
    address = settings.source
    if is_keeper(address):
        key = read_key(Path(settings.key_file)) if settings.key_file else key
        if not key:
            raise SettingInvalid(
                "The primary is asked with an API key, and there is none.",
                remedy="Name its file: `--key-file`, `replica.key_file`, or set PONDKEEPER_KEY. "
                "`pondkeeper key create` at the primary makes one, of the role admin on the databases to follow.",
                setting="replica.key_file",
            )
        ca_file = str(Path(settings.ca_file).absolute()) if settings.ca_file else None
        return Source(address.rstrip("/"), url=address, key=key, ca_file=ca_file)
    try:
        place = place_of(ArchiveSettings(to=address, key_file=settings.key_file), home)
    except SettingInvalid:
        raise SettingInvalid(
            "What is followed is the URL of a keeper, the absolute path of an archive's folder, or s3://bucket/prefix; "
            "the file of its key is named by its absolute path.",
            setting="replica.source",
        ) from None
    return Source(
        address,
        archive=place.target,
        archive_key_file=place.key_file,
        environment=tuple(place.environment.items()),
        readable=place.readable(),
    )


class ReplicaKeeper:
    """Makes the databases of a keeper replicas, but those that were promoted."""

    def __init__(self, folder: Path, home: Home, source: Source, settings: Settings) -> None:
        self._folder = folder
        self._home = home
        self._source = source
        self._wanted = settings.replica.databases
        self._interval_s = settings.replica.interval_s
        self._keep = settings.snapshots.keep

    @property
    def source(self) -> Source:
        return self._source

    def prepare(self) -> list[Path]:
        """The files that the databases would have: of those that are here, and of those that the primary has. Blocks.

        Raises what the primary answers, unless it cannot be reached: then those that are here are served.
        """
        make_folder(self._folder)
        self._replica = _own_name(self._home)
        names = set(self._wanted) or self._known()
        try:
            names |= set(self.there())
        except (PrimaryUnreachable, ArchiveUnavailable) as error:
            _log.warning("the primary cannot be asked which databases it has", error=error.to_wire(with_private=True))
        return [self._folder / f"{name}{SUFFIX}" for name in sorted(names)]

    def there(self) -> list[str]:
        """The databases to follow, as the primary names them. Blocks. Raises PondkeeperError."""
        if self._source.url:
            names = databases_of(Keeper(self._source.url, self._source.key, self._replica, self._source.ca_file))
        else:
            with open_to_read(self._source.archive, self._source.archive_key_file) as archive:
                names = databases_in(archive.store)
        return [name for name in names if is_database_name(name) and (not self._wanted or name in self._wanted)]

    def make(self, paths: DatabasePaths, *parts: Any) -> Database:
        """The database, as the registry makes it: a replica until it is promoted. Raises PromotionRefused."""
        if was_promoted(paths):
            _log.info("this replica was promoted: it is a primary", database=paths.name)
            return Database(paths, *parts)
        config = ReplicaConfig(self._source, self._replica, self._keep, self._interval_s)
        return Replica(paths, *parts).follow(config)

    async def watch(self, registry: Registry) -> None:
        """Follow also the databases that come to the primary from now on, until cancelled."""
        while True:
            await asyncio.sleep(ASK_AGAIN_S)
            try:
                for name in set(await asyncio.to_thread(self.there)) - {each.name for each in registry.all()}:
                    await registry.add(self._folder / f"{name}{SUFFIX}")
            except (PondkeeperError, OSError) as error:
                _log.debug("no new databases are followed", error=str(error))

    async def promote(self, registry: Registry, name: str, *, force: bool) -> Promoted:
        """Make one a primary; reads go on meanwhile. Raises PromotionRefused, and as `promoting.promote`."""
        database = registry.get(name)
        if not isinstance(database, Replica):
            raise PromotionRefused(f"Database {name!r} is a primary already.", remedy="Write to it.")
        if database.is_in_touch and self._source.url and not force:
            raise PromotionRefused(
                f"The primary {self._source.address} answers: there would be two of them.", primary=self._source.address
            )
        if database.newest is None:
            raise DatabaseUnavailable(f"Replica {name!r} has no version yet that could become a database.")
        await database.pause()
        try:
            done = await asyncio.to_thread(promote, database.paths, self._source.address)
        except BaseException:  # Why: whatever ended it, it is a replica still, and goes on following.
            database.resume()
            raise
        await registry.replace(name)
        _log.warning("a replica was promoted", database=name, version=done.version, lineage=done.lineage)
        return done

    def _known(self) -> set[str]:
        """The databases of which something is here."""
        folder = self._home.root / "databases"
        found = folder.iterdir() if folder.is_dir() else ()
        return {each.name for each in found if is_database_name(each.name) and (each / "snapshots").is_dir()}


def _own_name(home: Home) -> str:
    """By what the primary knows this keeper again."""
    make_folder(home.root)
    file = home.root / "replica.id"
    try:
        return file.read_text()
    except FileNotFoundError:
        name = secrets.token_hex(8)
        write_atomic(file, name.encode())
        return name

