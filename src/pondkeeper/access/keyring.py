"""The keeper's view of the keys: authenticates from memory, does all else in one thread of its own.

Rule 7 of DESIGN.md: the event loop never waits for SQLite. `authenticate` touches only memory, unless the change mark
says that keys changed since they were loaded; then that request waits for the new list, and the loop does not.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from pondkeeper.access.keys import EVERY_DATABASE, Key, Keys, Lock, NewKey, Role
from pondkeeper.access.store import Store, is_locked
from pondkeeper.access.tokens import parse_token
from pondkeeper.errors import ControlUnavailable, KeeperStopping, PondkeeperError, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

CHANGE_WAITS_S = 10.0
LOCK_HOLDS_THREAD_S = 0.02
LOOK_EVERY_S = 1.0
NOTE_USES_EVERY_S = 30.0

_log = structlog.get_logger(__name__)
_NO_DIGEST = bytes(32)
_T = TypeVar("_T")


class Keyring:
    """The keys of a running keeper. Made by `Keyring.open`, ended by `close`."""

    def __init__(self, thread: ThreadPoolExecutor, store: Store) -> None:
        self._thread = thread
        self._store = store
        self._keys = Keys(store)
        self._mark = b""  # Why: unlike any mark, so that the first request loads the keys.
        self._data_version = -1
        self._locks: dict[str, Lock] = {}
        self._loading = asyncio.Lock()
        self._is_closed = False
        self._uses: dict[str, float] = {}
        self._noted_at = time.monotonic()
        self._watch: asyncio.Task[None] | None = None

    @staticmethod
    async def open(control_db: Path) -> Keyring:
        """Open control.db (made where there is none) and load its keys."""
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="control-db")
        try:
            store = await asyncio.get_running_loop().run_in_executor(thread, _open, control_db)
        except BaseException:  # Why: whatever ended it, the thread must not outlive the attempt.
            thread.shutdown(wait=False)
            raise
        keyring = Keyring(thread, store)
        keyring._watch = asyncio.create_task(keyring._look_again(), name="keyring-watch")
        return keyring

    async def authenticate(self, token: str) -> Key:
        """The live key of a token. Raises Unauthenticated, or ControlUnavailable when changed keys cannot be read."""
        if self._is_closed:
            raise KeeperStopping
        if self._store.mark.read() != self._mark:
            await self._load_once()
        return self._check(token)

    def _check(self, text: str) -> Key:
        token = parse_token(text)
        lock = self._locks.get(token.key_id) if token else None
        # Why also without a key: the time of an answer does not tell which ids exist.
        is_right = hmac.compare_digest(token.digest if token else _NO_DIGEST, lock.digest if lock else _NO_DIGEST)
        if lock is None or not is_right:
            raise Unauthenticated("The key is not valid here.")
        now = time.time()
        if not lock.key.is_live(now):
            raise Unauthenticated(f"The key {lock.key.id} is {lock.key.state(now)}.")
        self._uses[lock.key.id] = now
        return lock.key

    async def create(
        self,
        name: str,
        role: str = Role.READER,
        databases: Iterable[str] = (EVERY_DATABASE,),
        expires_at: float | None = None,
        tables: Iterable[str] | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> NewKey:
        """As `Keys.create`."""
        return await self._change(lambda: self._keys.create(name, role, databases, expires_at, tables, limits))

    async def revoke(self, reference: str) -> Key:
        """As `Keys.revoke`; when this returns, no request gets in with that key."""
        return await self._change(lambda: self._keys.revoke(reference))

    async def all(self) -> list[Key]:
        """Every key ever made, with uses up to now."""
        await self._note_uses()
        return await self._in_thread(self._keys.all)

    async def ensure_admin_key(self) -> str | None:
        """As `Keys.ensure_admin_key`."""
        return await self._change(self._keys.ensure_admin_key)

    async def close(self) -> None:
        """Write down the last uses and let go of control.db."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._watch is not None:
            self._watch.cancel()
        await self._note_uses()
        await self._in_thread(self._store.close)
        self._thread.shutdown(wait=False)

    async def _change(self, work: Callable[[], _T]) -> _T:
        """`work` in the thread, again while another process has control.db locked.

        Trap: waiting for that lock inside the thread would hold up the loading of keys, and with it every request.
        """
        give_up_at = time.monotonic() + CHANGE_WAITS_S
        while True:
            try:
                return await self._in_thread(work)
            except ControlUnavailable as error:
                if not is_locked(error) or time.monotonic() > give_up_at:
                    raise
            await asyncio.sleep(LOCK_HOLDS_THREAD_S)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        try:
            future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        except RuntimeError as error:  # Why: this is how an executor says that it was shut down.
            raise KeeperStopping from error
        return await future

    async def _load_once(self) -> None:
        async with self._loading:
            if self._store.mark.read() != self._mark:  # Else the request before us has loaded them.
                await self._in_thread(self._load)

    def _load(self) -> None:
        # Trap: mark first, keys second. The other way round a change in between would go unseen.
        mark, data_version = self._store.mark.read(), self._store.data_version()
        self._locks = {lock.key.id: lock for lock in self._keys.locks()}
        self._mark, self._data_version = mark, data_version

    async def _note_uses(self) -> None:
        """Write down uses; when that fails they wait for the next time: no request depends on them."""
        uses, self._uses = self._uses, {}
        self._noted_at = time.monotonic()
        if not uses:
            return
        try:
            await self._in_thread(lambda: self._keys.note_uses(uses))
        except PondkeeperError as error:
            self._uses = uses | self._uses
            _log.warning("key_uses_not_noted", error=error.code, private=error.private)

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self._look()
            if time.monotonic() - self._noted_at >= NOTE_USES_EVERY_S:
                await self._note_uses()

    async def _look(self) -> None:
        """Second net under the change mark: a process that died between its commit and the mark."""
        try:
            if await self._in_thread(self._store.data_version) != self._data_version:
                await self._in_thread(self._load)
        except PondkeeperError as error:  # A locked disk passes; authentication goes on from memory meanwhile.
            _log.warning("keys_not_looked_at", error=error.code, private=error.private)


def _open(control_db: Path) -> Store:
    store = Store.open(control_db)
    store.wait_at_most(LOCK_HOLDS_THREAD_S)
    return store
