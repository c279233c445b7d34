"""`pondkeeper serve`: the keeper, in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from pondkeeper.cli.help import example, new_command
from pondkeeper.cli.target import outer_home
from pondkeeper.files.paths import Home, default_home
from pondkeeper.local.known import home_at
from pondkeeper.settings import Settings

FLAGS: Final = {
    "host": "server.host",
    "port": "server.port",
    "allowed_hosts": "server.allowed_hosts",
    "tls_cert": "server.tls_cert",
    "tls_key": "server.tls_key",
    "grace": "server.grace_s",
    "readers": "readers.count",
    "memory_limit": "readers.memory_limit_bytes",
    "threads": "readers.threads",
    "timeout": "readers.timeout_s",
    "max_rows": "readers.max_rows",
    "write_timeout": "writer.timeout_s",
    "write_wait": "writer.wait_s",
    "keep": "snapshots.keep",
    "archive": "archive.to",
    "log_level": "log.level",
    "log_format": "log.format",
}


@new_command(
    "serve",
    "Keep a database or a folder of them.",
    example("one database, made if it is not there", "pondkeeper serve warehouse.duckdb"),
    example("every database of a folder", "pondkeeper serve ./tenants"),
    example(
        "reachable from other machines, with smaller limits",
        "pondkeeper serve w.duckdb --host 0.0.0.0 --timeout 10s --memory-limit 2GB",
    ),
    example("with every second archived, to be restored later", "pondkeeper serve w.duckdb --archive /backup/warehouse"),
    example("over HTTPS", "pondkeeper serve w.duckdb --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem"),
    example("all settings, and where each comes from", "pondkeeper settings"),
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--host", help="Address to listen on.  [server.host; default: 127.0.0.1]")
@click.option("--port", help="Port to listen on; 0 takes a free one.  [server.port; default: 8420]")
@click.option("--allowed-hosts", metavar="NAME,…", help="Host names that requests may use.  [server.allowed_hosts]")
@click.option("--tls-cert", metavar="FILE", help="Certificate (PEM) to serve HTTPS with.  [server.tls_cert]")
@click.option("--tls-key", metavar="FILE", help="Its private key (PEM).  [server.tls_key; default: in the same file]")
@click.option(
    "--grace", metavar="DURATION", help="Time for running requests when it stops.  [server.grace_s; default: 10s]"
)
@click.option(
    "--readers", metavar="COUNT", help="Queries at the same time.  [readers.count; default: one per CPU, at least 4]"
)
@click.option("--memory-limit", metavar="SIZE", help="Memory of one reader, e.g. 2GB.  [readers.memory_limit_bytes]")
@click.option("--threads", metavar="COUNT", help="Threads of one reader.  [readers.threads; default: one per CPU]")
@click.option("--timeout", metavar="DURATION", help="Longest time of a query.  [readers.timeout_s; default: 30s]")
@click.option("--max-rows", metavar="COUNT", help="Most rows of an answer.  [readers.max_rows]")
@click.option("--write-timeout", metavar="DURATION", help="Longest time of a write.  [writer.timeout_s; default: 20s]")
@click.option("--write-wait", metavar="DURATION", help="How long a write waits for its turn.  [writer.wait_s; default: 60s]")
@click.option("--keep", metavar="COUNT", help="Snapshots to keep.  [snapshots.keep; default: 3]")
@click.option("--archive", metavar="TARGET", help="Folder or s3://bucket/prefix to archive every version in.  [archive.to]")
@click.option("--log-level", help="debug, info, warning or error.  [log.level; default: info]")
@click.option("--log-format", help="auto, console or json.  [log.format; default: console on a terminal, else json]")
@click.option("--home", metavar="FOLDER", type=click.Path(path_type=Path), envvar="PONDKEEPER_HOME", show_envvar=True,
              help="Where the keeper keeps its own files; default: .pondkeeper/ beside the database.")  # fmt: skip
@click.option("--config", metavar="FILE", type=click.Path(path_type=Path), envvar="PONDKEEPER_CONFIG", show_envvar=True,
              help="Settings file; default: pondkeeper.toml of the home.")  # fmt: skip
def command(path: Path, home: Path | None, config: Path | None, **flags: Any) -> int:
    """Keep the database PATH (a .duckdb file, made if missing, or a folder of them) until SIGTERM or Ctrl-C.

    Of a folder, files that come later are served as well.

    The first start makes an admin key and prints it once. In [brackets]: the setting that an option sets, which may
    stand in the settings file or the environment as well; `pondkeeper settings` lists all.
    """
    home = home or outer_home()
    place = home_at(home) if home else Home(default_home(path.absolute()))
    settings = load_settings(place, config, flags)
    from pondkeeper.server.serving import serve  # Why here: it brings the web stack, which no other command needs.

    return serve(path.absolute(), place, settings)


def load_settings(home: Home, config: Path | None, flags: dict[str, Any]) -> Settings:
    """The settings of a keeper in `home`, with the flags of `serve` on top."""
    typed = {FLAGS[name]: value for name, value in flags.items()}
    if (archive := flags.get("archive")) and "://" not in archive:
        typed[FLAGS["archive"]] = str(Path(archive).absolute())
    return Settings.load(config or home.settings_file, must_exist=config is not None, flags=typed)
