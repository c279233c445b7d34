"""Secrets of jobs are named, never written: `env:NAME` or `file:/path`. Whoever needs one asks for it when it is needed."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pondkeeper.errors import SettingInvalid

MAX_SECRET_BYTES = 64 * 1024
_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*\Z|file:/[^\0\n]+\Z")


def is_reference(text: str) -> bool:
    """Whether the text names a secret instead of being one."""
    return bool(_REFERENCE.match(text))


def reveal(reference: str) -> str:
    """The secret that is named so. Raises SettingInvalid, which says the name and never what was found."""
    source, _, name = reference.partition(":")
    if source == "env":
        return _of_environment(name)
    if source == "file" and name.startswith("/"):
        return _of_file(Path(name))
    raise SettingInvalid('A secret is named as "env:NAME" or "file:/path".')


def _of_environment(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise SettingInvalid(
            f"The environment variable {name} is not set, and a job takes a secret from it.",
            remedy="Set it where the keeper (or, without one, the command) is started, and start that again.",
        )
    return value


def _of_file(path: Path) -> str:
    """What stands in the file, without the line's end."""
    remedy = "Make the file readable for the user that the keeper runs as, and for nobody else (mode 0600)."
    try:
        with path.open("rb") as file:
            text = file.read(MAX_SECRET_BYTES + 1).decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingInvalid("A file with a secret of a job cannot be read.", private=f"{path}: {error}", remedy=remedy) from error
    if not text or len(text) > MAX_SECRET_BYTES:
        raise SettingInvalid("A file with a secret of a job is empty, or too large.", private=str(path), remedy=remedy)
    return text
