"""Who may write to a bucket, and who may remove from it, where no kernel holds a lock: claims, as objects in the bucket.

A writer puts its claim, then looks for removers, and steps back if there is one. A remover puts its claim, steps back
before another remover, and waits for the writers that are there to end; none begins meanwhile. Buckets show at once what
was put, so of two that overlap at least one sees the other.

A claim is renewed while it is held; one that was not renewed for `STALE_S`, by the server's own clock, is a dead holder's
and is removed. A holder that was asleep for that long learns it from its own clock, before it writes its manifest.

A writer keeps its claim for the next version (three requests less each second), and looks for removers now and then.
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

STALE_S = 120.0
_RENEW_S = 30.0
_LOST_S = 90.0
_LINGER_S = 15.0
_PAUSE_S = (0.1, 1.0)
_WRITING = "claims/writing/"
_REMOVING = "claims/removing/"


class Bucket(Protocol):
    """What claims need of a store."""

    def put(self, name: str, data: bytes) -> None: ...
    def delete(self, names: list[str]) -> None: ...
    def ages(self, prefix: str) -> dict[str, float]: ...


class Claim:
    """One object of ours in the bucket, renewed by a thread while it is held."""

    def __init__(self, bucket: Bucket, kind: str) -> None:
        self._bucket = bucket
        self.kind = kind
        self.name = kind + secrets.token_hex(12)
        self.looked_at = 0.0
        self._renewed_at = 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_lost(self) -> bool:
        """Whether others may have taken it for a dead one's."""
        return time.monotonic() - self._renewed_at > _LOST_S

    def check(self) -> None:
        if self.is_lost:
            raise ArchiveBusy(
                "The right to write to the archive was lost: its bucket could not be reached for minutes.",
                remedy="Nothing is harmed; it is tried again.",
            )

    def renew(self) -> None:
        began = time.monotonic()  # Why before: the server may have put it at any moment from now on.
        self._bucket.put(self.name, b"{}")
        self._renewed_at = began

    def keep(self) -> None:
        """From now on it is renewed."""
        self._thread = threading.Thread(target=self._keep, name="archive claim", daemon=True)
        self._thread.start()

    def drop(self) -> None:
        """Remove it; where that fails it goes stale by itself."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(ArchiveUnavailable):
            self._bucket.delete([self.name])

    def rivals(self) -> list[str]:
        """The kinds of the living claims of others. Ages are told by the server's clock, also that of ours."""
        self.looked_at = time.monotonic()
        ages = {name: put_at for kind in (_REMOVING, _WRITING) for name, put_at in self._bucket.ages(kind).items()}
        now = ages.pop(self.name, None)
        if now is None:
            raise ArchiveUnavailable("The archive's bucket does not show what was just put there.")
        stale = [name for name, put_at in ages.items() if now - put_at > STALE_S]
        if stale:
            self._bucket.delete(stale)
        return [name.rsplit("/", 1)[0] + "/" for name in ages if name not in stale]

    def _keep(self) -> None:
        while not self._ended.wait(_RENEW_S):
            with contextlib.suppress(ArchiveUnavailable):  # Why: tried again; `check` tells when it was for too long.
                self.renew()


class Claims:
    """The claims that one process makes on one bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._lock = threading.Lock()
        self._writing: Claim | None = None
        self._writers = 0
        self._idle: threading.Timer | None = None

    @contextlib.contextmanager
    def writing(self, timeout_s: float) -> Iterator[Claim]:
        with self._lock:
            claim = self._shared(timeout_s)
            self._writers += 1
        try:
            yield claim
        finally:
            with self._lock:
                self._writers -= 1
                self._drop_later()

    @contextlib.contextmanager
    def removing(self, timeout_s: float) -> Iterator[Claim]:
        self.close()
        claim = self._made(_REMOVING, timeout_s)
        try:
            yield claim
        finally:
            claim.drop()

    def close(self) -> None:
        """Let go of a claim that was kept for the next version."""
        with self._lock:
            if not self._writers:
                self._drop()

    def _shared(self, timeout_s: float) -> Claim:
        """The claim of this process; a new one where it is lost, or where a remover waits for its end."""
        if self._idle is not None:
            self._idle.cancel()
        claim = self._writing
        if claim is not None and not self._writers:
            is_fresh = time.monotonic() - claim.looked_at < _LINGER_S
            if claim.is_lost or (not is_fresh and _REMOVING in claim.rivals()):
                self._drop()
        if self._writing is None:
            self._writing = self._made(_WRITING, timeout_s)
        return self._writing

    def _drop_later(self) -> None:
        if not self._writers:
            self._idle = threading.Timer(_LINGER_S, self.close)
            self._idle.daemon = True
            self._idle.start()

    def _drop(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        claim, self._writing = self._writing, None
        if claim is not None:
            claim.drop()

    def _made(self, kind: str, timeout_s: float) -> Claim:
        """A claim that stands alone, as far as it must, and is kept."""
        ends_at = time.monotonic() + timeout_s
        while True:
            claim = Claim(self._bucket, kind)
            try:
                claim.renew()
                claim.keep()
                if _stands(claim, ends_at):
                    return claim
            except BaseException:  # Why: whatever ended it, a claim that nobody holds must not stop others.
                claim.drop()
                raise
            claim.drop()
            if time.monotonic() >= ends_at:
                raise ArchiveBusy
            time.sleep(random.uniform(*_PAUSE_S))


def _stands(claim: Claim, ends_at: float) -> bool:
    """Whether nobody stands against it. A remover waits for writers, since none begins any more; else we step back."""
    while True:
        rivals = claim.rivals()
        if _REMOVING in rivals:
            return False
        if claim.kind == _WRITING or not rivals:
            return True
        if time.monotonic() >= ends_at:
            return False
        time.sleep(random.uniform(*_PAUSE_S))
        claim.renew()  # Why: its time is how we know what time it is there, and so how old the others are.
