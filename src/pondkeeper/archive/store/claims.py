"""Who may write to a bucket, and who may remove from it, where no kernel holds a lock: claims, as objects in the bucket.

A writer puts its claim, then looks for removers; a remover puts its claim, then looks for writers and other removers.
Buckets answer with what was written last, so of two that overlap at least one sees the other, and steps back. A claim
is renewed while it is held; one that was not renewed for `STALE_S` by the server's own clock is a dead holder's and is
removed. A holder that was asleep for that long learns it from its own clock, before it writes its manifest.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from pondkeeper.errors import ArchiveBusy, ArchiveUnavailable

STALE_S = 300.0
_RENEW_S = 60.0
_LOST_S = 240.0
_PAUSE_S = (0.1, 1.0)
_WRITING = "claims/writing/"
_REMOVING = "claims/removing/"


class Bucket(Protocol):
    """What claims need of a store."""

    def put(self, name: str, data: bytes) -> None: ...
    def delete(self, names: list[str]) -> None: ...
    def ages(self, prefix: str) -> dict[str, float]: ...


class Claims:
    """The claims that one process makes on one bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    @contextlib.contextmanager
    def writing(self, timeout_s: float) -> Iterator[Claim]:
        with self._held(_WRITING, (_REMOVING,), timeout_s) as claim:
            yield claim

    @contextlib.contextmanager
    def removing(self, timeout_s: float) -> Iterator[Claim]:
        with self._held(_REMOVING, (_REMOVING, _WRITING), timeout_s) as claim:
            yield claim

    @contextlib.contextmanager
    def _held(self, kind: str, rivals: tuple[str, ...], timeout_s: float) -> Iterator[Claim]:
        claim = self._made(kind, rivals, timeout_s)
        try:
            with claim.kept():
                yield claim
        finally:
            with contextlib.suppress(ArchiveUnavailable):  # Why: it goes stale by itself.
                self._bucket.delete([claim.name])

    def _made(self, kind: str, rivals: tuple[str, ...], timeout_s: float) -> Claim:
        ends_at = time.monotonic() + timeout_s
        while True:
            claim = Claim(self._bucket, kind + secrets.token_hex(12))
            claim.renew()
            try:
                if not self._has_rival(claim, rivals):
                    return claim
            except ArchiveUnavailable:
                with contextlib.suppress(ArchiveUnavailable):
                    self._bucket.delete([claim.name])
                raise
            self._bucket.delete([claim.name])  # Why: two that wait for each other's claim would wait for ever.
            if time.monotonic() >= ends_at:
                raise ArchiveBusy
            time.sleep(random.uniform(*_PAUSE_S))

    def _has_rival(self, claim: Claim, rivals: tuple[str, ...]) -> bool:
        """Whether a living claim stands against ours. Ages are told by the server's clock, also that of ours."""
        ages = {name: put_at for rival in {*rivals, claim.kind} for name, put_at in self._bucket.ages(rival).items()}
        now = ages.get(claim.name)
        if now is None:
            raise ArchiveUnavailable("The archive's bucket does not show what was just put there.")
        stale = [name for name, put_at in ages.items() if now - put_at > STALE_S]
        if stale:
            self._bucket.delete(stale)
        return any(name.startswith(rivals) and name != claim.name and name not in stale for name in ages)


class Claim:
    """One object of ours in the bucket, renewed by a thread while it is held."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        self._bucket = bucket
        self.name = name
        self.kind = name.rsplit("/", 1)[0] + "/"
        self._renewed_at = 0.0
        self._ended = threading.Event()

    def renew(self) -> None:
        began = time.monotonic()  # Why before: the server may have put it at any moment from now on.
        self._bucket.put(self.name, b"{}")
        self._renewed_at = began

    def check(self) -> None:
        if time.monotonic() - self._renewed_at > _LOST_S:
            raise ArchiveBusy(
                "The right to write to the archive was lost: its bucket could not be reached for minutes.",
                remedy="Nothing is harmed; it is tried again.",
            )

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        thread = threading.Thread(target=self._keep, name="archive claim", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _keep(self) -> None:
        while not self._ended.wait(_RENEW_S):
            with contextlib.suppress(ArchiveUnavailable):  # Why: tried again; `check` tells when it was for too long.
                self.renew()
