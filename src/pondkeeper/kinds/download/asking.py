"""One request: to whom, with what, through redirects. By httpx's transport, without its client.

Why without: of what a client does for each request, nothing is wanted here but redirects (cookies, authentication, merging of
settings), and it takes as long again as the request itself. One transport per worker: nobody waits for a shared pool.
"""

from __future__ import annotations

import base64
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

import httpx

from pondkeeper import __version__
from pondkeeper.kinds.download.trouble import Trouble

MOST_REDIRECTS: Final = 10
DRAINED_BYTES: Final = 64 * 1024
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True)
class Manners:
    """What every request of a job has in common. `authorization` is for the host of the URL only."""

    headers: Mapping[str, str] = field(default_factory=dict)
    authorization: str = ""
    hosts: tuple[str, ...] = ()
    timeout_s: float = 30.0

    def allows(self, host: str) -> bool:
        """Whether this host may be asked."""
        host = host.lower()
        return not self.hosts or any(fnmatchcase(host, pattern.lower()) for pattern in self.hosts)


class Asker:
    """Asks servers, one request after the other. For one thread."""

    def __init__(self, manners: Manners, tls: Callable[[], ssl.SSLContext]) -> None:
        self._manners = manners
        self._tls = tls
        self._transports: dict[tuple[bool, str | None], httpx.HTTPTransport] = {}
        self._proxies = getproxies()
        self._timeouts = dict.fromkeys(("connect", "read", "write", "pool"), manners.timeout_s)
        # Why identity: what is stored is what the server has, so that ranges, lengths and checksums are of the same bytes.
        given = {name.lower() for name in manners.headers}
        own = {"User-Agent": f"pondkeeper/{__version__}", "Accept": "*/*"}
        self._headers = {name: value for name, value in own.items() if name.lower() not in given}
        self._headers |= {**manners.headers, "Accept-Encoding": "identity"}

    def close(self) -> None:
        """Close the connections."""
        for transport in self._transports.values():
            transport.close()

    def ask(self, url: str, headers: Mapping[str, str]) -> httpx.Response:
        """The answer's head, after redirects; the caller closes it. Raises Trouble."""
        target = _parsed(url)
        first = _origin(target)
        for _ in range(MOST_REDIRECTS):
            self._check(target)
            response = self._send(target, {**self._headers, **headers, **self._own(target, is_first=_origin(target) == first)})
            if response.status_code not in REDIRECTS or "location" not in response.headers:
                return response
            drain(response)
            target = _joined(target, response.headers["location"])
        raise Trouble(f"redirected more than {MOST_REDIRECTS} times")

    def _send(self, url: httpx.URL, headers: dict[str, str]) -> httpx.Response:
        try:
            request = httpx.Request("GET", url, headers=headers, extensions={"timeout": self._timeouts})
            return self._transport(url).handle_request(request)
        except httpx.TimeoutException as error:
            raise Trouble(f"the server was silent for {self._manners.timeout_s:g} s", passing=True, unreachable=True) from error
        except httpx.TransportError as error:
            raise Trouble(f"the server cannot be reached: {_told(error)}", passing=True, unreachable=True) from error
        except (httpx.InvalidURL, UnicodeError, ValueError) as error:
            raise Trouble(f"the URL cannot be asked for: {_told(error)}") from error

    def _transport(self, url: httpx.URL) -> httpx.HTTPTransport:
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        if proxy is not None and proxy_bypass(url.host):
            proxy = None
        way = url.scheme == "https", proxy
        if way not in self._transports:
            # Why apart: reading the certificates takes longer than a hundred files, and plain HTTP needs none.
            tls = self._tls() if url.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            limits = httpx.Limits(max_connections=4, max_keepalive_connections=4)
            self._transports[way] = httpx.HTTPTransport(verify=tls, limits=limits, proxy=proxy)
        return self._transports[way]

    def _check(self, url: httpx.URL) -> None:
        if url.scheme not in ("http", "https") or not url.host:
            raise Trouble("only http:// and https:// URLs can be downloaded")
        if not self._manners.allows(url.host):
            raise Trouble(f"the host {url.host[:100]} is not among `hosts`")

    def _own(self, url: httpx.URL, *, is_first: bool) -> dict[str, str]:
        if url.userinfo:
            user = base64.b64encode(unquote(url.userinfo.decode()).encode()).decode()
            return {"Authorization": f"Basic {user}"}
        return {"Authorization": self._manners.authorization} if is_first and self._manners.authorization else {}


def drain(response: httpx.Response) -> None:
    """Read a short body to its end, so that the connection can be used again; close it with a long one. Never raises."""
    length = response.headers.get("content-length", "0")
    try:
        if length.isdigit() and int(length) <= DRAINED_BYTES and "transfer-encoding" not in response.headers:
            for _ in response.iter_raw():
                pass
    except (httpx.HTTPError, httpx.StreamError):
        pass  # the connection is gone, and it was not wanted any more
    finally:
        with suppress(httpx.HTTPError):
            response.close()


def _parsed(url: str) -> httpx.URL:
    try:
        return httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError, TypeError, ValueError) as error:
        raise Trouble("the URL is not one") from error


def _joined(url: httpx.URL, location: str) -> httpx.URL:
    try:
        return url.join(location)
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise Trouble("the server redirects to what is no URL") from error


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _told(error: Exception) -> str:
    return str(error).replace("\n", " ")[:200] or type(error).__name__


class Certificates:
    """The authorities that servers are checked by: read once for all workers, when the first of them needs them."""

    def __init__(self) -> None:
        self._context: ssl.SSLContext | None = None
        self._lock = threading.Lock()

    def __call__(self) -> ssl.SSLContext:
        with self._lock:
            if self._context is None:
                self._context = ssl.create_default_context()
            return self._context
