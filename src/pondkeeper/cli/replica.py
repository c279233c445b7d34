"""`pondkeeper replica`: a keeper whose databases follow those of another keeper, or an archive."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import click

from pondkeeper.cli.help import example, new_command
from pondkeeper.cli.target import outer_home
from pondkeeper.errors import InvalidRequest
from pondkeeper.files.paths import Home, default_home
from pondkeeper.local.known import home_at
from pondkeeper.settings import Settings

FLAGS: Final = {
    "source": "replica.source",
    "databases": "replica.databases",
    "key_file": "replica.key_file",
    "ca_file": "replica.ca_file",
    "interval": "replica.interval_s",
    "host": "server.host",
    "port": "server.port",
    "allowed_hosts": "server.allowed_hosts",
    "tls_cert": "server.tls_cert",
    "tls_key": "server.tls_key",
    "readers": "readers.count",
    "keep": "snapshots.keep",
    "log_level": "log.level",
    "log_format": "log.format",
}


@new_command(
    "replica",
    "Follow another keeper, read-only.",
    example("a key for it, made at the primary", "pondkeeper key create replica-1 --role admin --database sales"),
    example("follow a keeper on another machine", "pondkeeper replica ./standby --from https://db:8420 --key-file replica.key"),
    example("follow what a keeper archives", "pondkeeper replica ./standby --from s3://backups/warehouse"),
    example("make it the primary when that is lost", "pondkeeper promote"),
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--from", "source", metavar="URL", help="Keeper, or archive (a folder, s3://bucket/prefix).  [replica.source]")
@click.option("-d", "--database", "databases", multiple=True, metavar="NAME",
              help="Follow this one; again for more.  [replica.databases; default: all that the key may see]")  # fmt: skip
@click.option("--key-file", metavar="FILE",
              help="File with the API key; without it PONDKEEPER_KEY. Of an encrypted archive its key.  [replica.key_file]")  # fmt: skip
@click.option("--ca-file", metavar="FILE", help="Certificates (PEM) to trust for HTTPS.  [replica.ca_file]")
@click.option("--interval", metavar="DURATION", help="Ask at most this often.  [replica.interval_s; default: 100ms]")
@click.option("--host", help="Address to listen on.  [server.host; default: 127.0.0.1]")
@click.option("--port", help="Port to listen on; 0 takes a free one.  [server.port; default: 8420]")
@click.option("--allowed-hosts", metavar="NAME,…", help="Host names that requests may use.  [server.allowed_hosts]")
@click.option("--tls-cert", metavar="FILE", help="Certificate (PEM) to serve HTTPS with.  [server.tls_cert]")
@click.option("--tls-key", metavar="FILE", help="Its private key (PEM).  [server.tls_key]")
@click.option("--readers", metavar="COUNT", help="Queries at the same time.  [readers.count]")
@click.option("--keep", metavar="COUNT", help="Snapshots to keep.  [snapshots.keep; default: 3]")
@click.option("--log-level", help="debug, info, warning or error.  [log.level; default: info]")
@click.option("--log-format", help="auto, console or json.  [log.format]")
@click.option("--home", metavar="FOLDER", type=click.Path(path_type=Path), envvar="PONDKEEPER_HOME", show_envvar=True,
              help="Where the keeper keeps its own files; default: .pondkeeper/ in the folder.")  # fmt: skip
@click.option("--config", metavar="FILE", type=click.Path(path_type=Path), envvar="PONDKEEPER_CONFIG", show_envvar=True,
              help="Settings file; default: pondkeeper.toml of the home.")  # fmt: skip
def command(folder: Path, home: Path | None, config: Path | None, databases: tuple[str, ...], **flags: Any) -> int:
    """Keep read-only copies of the databases of another keeper in FOLDER (made if missing), and answer queries from them.

    Only blocks that have changed are fetched. Every answer says how far behind it is; a query that asks for a version
    (`at_least`) waits for it or is refused with the lag; writes are refused with the name of the primary.

    It goes on with what it has while the primary cannot be reached, and catches up by itself. Keys are its own: its first
    start makes an admin key and prints it once.
    """
    home = home or outer_home()
    folder = folder.absolute()
    # Why not default_home(folder): of a folder that is not there yet that would be the one above it.
    place = home_at(home) if home else Home(default_home(folder / "any.duckdb"))
    settings = _settings(place, config, flags | {"databases": ",".join(databases) or None})
    if not settings.replica.source:
        raise InvalidRequest("Nothing says what is to be followed.", remedy="Name it: `--from`, or `replica.source`.")
    from pondkeeper.archive.replica.keeper import source_of
    from pondkeeper.server.serving import serve  # Why here: it brings the web stack, which most commands do not need.

    return serve(folder, place, settings, source_of(settings.replica, place, os.environ.get("PONDKEEPER_KEY")))


def _settings(home: Home, config: Path | None, flags: dict[str, Any]) -> Settings:
    typed = {FLAGS[name]: value for name, value in flags.items()}
    for name in ("replica.source", "replica.key_file", "replica.ca_file"):
        if (path := typed[name]) and "://" not in path:
            typed[name] = str(Path(path).absolute())
    return Settings.load(config or home.settings_file, must_exist=config is not None, flags=typed)
