"""Settings of jobs of the kind `download`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from pondkeeper.jobs.kinds_settings.leaves import mapping_setting
from pondkeeper.settings.tree import DAY_S, GIB, KIB, TIB, setting

OF_A_FILE: Final = frozenset({"authorization", "range", "if-range", "if-none-match", "if-modified-since", "accept-encoding", "host"})
"""Headers that this kind sends itself."""


@dataclass(frozen=True, slots=True)
class DownloadSettings:
    """Files of the URLs that a query names, and a mark in the database for each that came."""

    required: ClassVar[tuple[str, ...]] = ("query", "folder")

    query: str = setting(
        "",
        "What to download: a query with a column `url` and, if it likes, `file` (the path in the folder; else the last part "
        "of the URL) and `checksum` (md5, sha1, sha256 or sha512, in hexadecimal). All other columns are for `mark`.",
        unit="sql",
    )
    folder: str = setting("", "The folder that the files go to; made if it is missing.", unit="path")
    mark: str = setting(
        "",
        "The statement that notes a batch of files that are there. It finds them in the relation `downloaded`: the query's "
        "columns, and `size_bytes`, `sha256`, `etag`, `changed`, `downloaded_at`.",
        unit="sql",
    )
    mark_failed: str = setting(
        "",
        "The statement that notes a batch of files that could not be had, in the relation `failed`: the query's columns, and "
        "`error`, `http_status`, `attempts`, `failed_at`. Without it they are tried again by the next run.",
        unit="sql",
    )
    workers: int = setting(16, "Downloads at the same time.", minimum=1, maximum=256)
    requests_per_s: float = setting(
        0.0, "Most requests per second, of all workers together.", minimum=0, maximum=1_000_000, automatic="as many as go"
    )
    attempts: int = setting(
        4,
        "How often a file is asked for before it counts as failed: lost connections and the statuses 408, 425, 429, 500, 502, "
        "503 and 504 are tried again, after a wait that doubles, or as long as the server says (Retry-After).",
        minimum=1,
        maximum=100,
    )
    request_timeout_s: float = setting(
        30.0, "Longest silence of a server.", unit="s", minimum=0.1, maximum=DAY_S
    )
    batch: int = setting(500, "Most files that are marked at once, in one short transaction.", minimum=1, maximum=100_000)
    flush_every_s: float = setting(
        5.0, "How long a file that has come waits to be marked, at most.", unit="s", minimum=0.1, maximum=DAY_S
    )
    existing: str = setting(
        "check",
        "Files that are there already: `check` asks the server whether they have changed, `keep` takes them as they are "
        "without asking, `replace` downloads them anew. One whose `checksum` is right is never asked for.",
        choices=("check", "keep", "replace"),
    )
    headers: Mapping[str, str] = mapping_setting("Headers of each request, such as User-Agent. No secrets: use `authorization`.")
    authorization: str = setting(
        "", "The Authorization header, sent to the host of the URL and not where that redirects to.", unit="secret"
    )
    hosts: tuple[str, ...] = setting(
        (), 'The only hosts that may be asked, also after redirects: ["images.example.com", "*.example.org"]; empty is any.'
    )
    max_file_bytes: int = setting(GIB, "Largest file that is taken.", unit="bytes", minimum=KIB, maximum=TIB)
    max_failed: int = setting(
        0, "How many files may fail without the run counting as failed.", minimum=0, maximum=2**53
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with values that are each of the right type: name of the setting, and what."""
        for name, value in self.headers.items():
            if name.lower() in OF_A_FILE:
                yield "headers", f"`{name[:40]}` is not to be set here" + (
                    "; use `authorization`" if name.lower() == "authorization" else ": each request has its own"
                )
            elif not _is_header(name, value):
                yield "headers", f"{name[:40]!r} is no header: a name of letters, digits and dashes, and one line of text"


def _is_header(name: str, value: str) -> bool:
    plain = name.replace("-", "").replace("_", "")
    return plain.isascii() and plain.isalnum() and value.isascii() and (value == "" or value.isprintable())
