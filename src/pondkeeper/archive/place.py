"""Where a keeper's archive is: its settings, what the last keeper noted down for commands that run without one, or the home."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec

from pondkeeper.errors import SettingInvalid
from pondkeeper.files.durable import write_atomic
from pondkeeper.files.paths import Home
from pondkeeper.settings import ArchiveSettings

BUCKET = "s3://"
_FOR_BUCKETS = ("AWS_", "SSL_CERT_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_TOKEN_FILES = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
_READ_BY_NETWORK = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services"),
    *("/run/systemd/resolve", "/run/resolvconf", "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/usr/share/ca-certificates"),
    *("/usr/local/share/ca-certificates", "/etc/crypto-policies"),
)


@dataclass(frozen=True)
class Place:
    """A folder (absolute) or `s3://bucket/prefix`, and the file of its key where it is encrypted.

    `environment`: the variables by which a bucket is reached, credentials among them; never written down.
    """

    target: str
    key_file: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_bucket(self) -> bool:
        return self.target.startswith(BUCKET)

    def readable(self) -> tuple[str, ...]:
        """What beside the snapshots must be read by whoever opens the archive."""
        # Why their folders: whoever renews such a token puts a new file in the place of the old one.
        tokens = [str(Path(self.environment[name]).parent) for name in _TOKEN_FILES if self.environment.get(name)]
        return (*((self.key_file,) if self.key_file else ()), *(_READ_BY_NETWORK if self.is_bucket else ()), *tokens)

    def writable(self) -> tuple[str, ...]:
        return () if self.is_bucket else (self.target,)

    def note(self, home: Home) -> None:
        """Write down where it is, for commands that run without the keeper."""
        write_atomic(home.archive_json, msgspec.json.encode({"target": self.target, "key_file": self.key_file}))


def place_of(settings: ArchiveSettings, home: Home) -> Place:
    """The place that the settings name, else the folder in the home. Raises SettingInvalid."""
    return _place(settings.to or str(home.archive), settings.key_file)


def place_without_keeper(settings: ArchiveSettings, home: Home) -> Place:
    """The same for commands that run without a keeper: the settings, else what the last keeper of this home has noted."""
    if not settings.to:
        try:
            noted = msgspec.json.decode(home.archive_json.read_bytes(), type=dict[str, str])
            return _place(noted["target"], settings.key_file or noted.get("key_file", ""))
        except (OSError, msgspec.DecodeError, KeyError):
            pass  # Why: no keeper of this home has had an archive elsewhere.
    return place_of(settings, home)


def _place(target: str, key_file: str) -> Place:
    is_bucket = target.startswith(BUCKET)
    for name, path in (("archive.to", "" if is_bucket else target), ("archive.key_file", key_file)):
        if path and not Path(path).expanduser().is_absolute():
            raise SettingInvalid(
                f"`{name}` must be an absolute path{' or s3://bucket/prefix' if name == 'archive.to' else ''}.",
                remedy="A path is taken as it is wherever the keeper is started from.",
                setting=name,
            )
    environment = {n: v for n, v in os.environ.items() if n.startswith(_FOR_BUCKETS)} if is_bucket else {}
    if not is_bucket:
        target = str(Path(target).expanduser())
    return Place(target, str(Path(key_file).expanduser()) if key_file else "", environment)


def place_to_wire(place: Place) -> dict[str, object]:
    """For the pipe of a child, and for nothing that is written down."""
    return asdict(place) | {"environment": dict(place.environment)}
