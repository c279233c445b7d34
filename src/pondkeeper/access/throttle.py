"""How often and how many at once: a bucket of requests per key, a count of what runs, and failed logins by address."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

from pondkeeper.access.authorize import LOCAL_KEY
from pondkeeper.errors import RateLimited, TooManyFailedLogins

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pondkeeper.access.keys import Key
    from pondkeeper.access.limits import Effective

BURST_S: Final = 2.0
MAX_BUCKETS: Final = 10_000
CONCURRENT_RETRY_S: Final = 1.0


class Bucket:
    """Fills at a rate up to a size; each request takes one out."""

    __slots__ = ("_at", "_level", "rate_per_s", "size")

    def __init__(self, rate_per_s: float, size: float, now: float) -> None:
        self.rate_per_s = rate_per_s
        self.size = size
        self._level = size
        self._at = now

    def take(self, now: float) -> float:
        """Take one; 0.0, or the seconds until there is one."""
        self._level = min(self.size, self._level + (now - self._at) * self.rate_per_s)
        self._at = now
        if self._level < 1.0:
            return (1.0 - self._level) / self.rate_per_s
        self._level -= 1.0
        return 0.0


class Throttle:
    """The counts of one keeper. The owner at the control socket is counted, and never held up."""

    def __init__(self, failed_logins_per_min: float) -> None:
        self._failed_per_min = failed_logins_per_min
        self._requests: OrderedDict[str, Bucket] = OrderedDict()
        self._failed: OrderedDict[str, Bucket] = OrderedDict()
        self._running: Counter[str] = Counter()

    def request(self, key: Key, effective: Effective) -> None:
        """Count a request of this key. Raises RateLimited."""
        rate = effective.limits.requests_per_s
        if rate is None or key is LOCAL_KEY:
            return
        now = time.monotonic()
        bucket = self._requests.get(key.id)
        if bucket is None or bucket.rate_per_s != rate:
            bucket = _kept(self._requests, key.id, Bucket(rate, max(1.0, rate * BURST_S), now))
        if wait_s := bucket.take(now):
            raise RateLimited(
                f"This key may make {rate:g} requests a second.",
                limit="requests_per_s",
                level=effective.levels["requests_per_s"],
                retry_after_s=round(wait_s, 3),
            )

    def insist_on_room(self, key: Key, effective: Effective) -> None:
        """Raise RateLimited when this key has as many queries as it may have at a time."""
        most = effective.limits.concurrent
        if most is not None and self._running[key.id] >= most and key is not LOCAL_KEY:
            raise RateLimited(
                f"This key may have {most:g} queries at a time.",
                limit="concurrent",
                level=effective.levels["concurrent"],
                retry_after_s=CONCURRENT_RETRY_S,
            )

    @contextmanager
    def query(self, key: Key, effective: Effective) -> Iterator[None]:
        """Count a query of this key while it runs. Raises RateLimited."""
        self.insist_on_room(key, effective)
        self._running[key.id] += 1
        try:
            yield
        finally:
            self._running[key.id] -= 1
            if not self._running[key.id]:
                del self._running[key.id]

    def failed_login(self, address: str | None) -> None:
        """Count a login that failed. Raises TooManyFailedLogins when there were too many from that address."""
        if not self._failed_per_min:
            return
        now = time.monotonic()
        name = _network(address)
        bucket = self._failed.get(name)
        if bucket is None:
            bucket = _kept(self._failed, name, Bucket(self._failed_per_min / 60.0, self._failed_per_min, now))
        if wait_s := bucket.take(now):
            raise TooManyFailedLogins(retry_after_s=round(wait_s, 3))


def _kept(buckets: OrderedDict[str, Bucket], name: str, bucket: Bucket) -> Bucket:
    """Remember a bucket; when there are too many, the oldest goes: it has had time to fill again."""
    buckets[name] = bucket
    buckets.move_to_end(name)
    if len(buckets) > MAX_BUCKETS:
        buckets.popitem(last=False)
    return bucket


def _network(address: str | None) -> str:
    """The address; of IPv6 its network, of which a caller has all addresses."""
    try:
        found = ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return str(IPv6Address(int(found) >> 64 << 64))
    return str(found)
