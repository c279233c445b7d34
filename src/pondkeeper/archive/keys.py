"""The key of an encrypted archive: one secret in a file, from it one key for names, one for contents, one to recognise it."""

from __future__ import annotations

import hmac
import os
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pondkeeper.errors import ArchiveDamaged, ArchiveKeyInvalid

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_KEY = re.compile(r"[0-9a-fA-F]{64}\Z")
_NONCE_BYTES = 12


class ArchiveKey:
    """32 secret bytes. Whoever loses them has lost the archive; `repr` does not show them."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32:
            raise ArchiveKeyInvalid
        self._secret = secret

    @classmethod
    def read(cls, file: Path) -> ArchiveKey:
        """The key in a file: 64 hexadecimal digits, which only its owner may read."""
        try:
            mode, text = file.stat().st_mode, file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ArchiveKeyInvalid("The file of the archive's key cannot be read.", private=str(error)) from error
        if mode & 0o077:
            raise ArchiveKeyInvalid(
                "Others may read the file of the archive's key.", remedy="`chmod 600` it.", private=str(file)
            )
        if not _KEY.match(text):
            raise ArchiveKeyInvalid(private=str(file))
        return cls(bytes.fromhex(text))

    @cached_property
    def naming(self) -> bytes:
        return self._derived(b"pondkeeper archive names")

    @cached_property
    def mark(self) -> str:
        """By which an archive recognises its key, without telling anything about it."""
        return self._derived(b"pondkeeper archive mark").hex()[:32]

    @cached_property
    def _contents(self) -> bytes:
        return self._derived(b"pondkeeper archive contents")

    def encrypt(self, data: bytes, name: bytes, head: bytes) -> bytes:
        """Bound to its name and its head: an object under another's name does not open."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher(name).encrypt(nonce, data, head)

    def decrypt(self, data: bytes, name: bytes, head: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher(name).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], head)
        except (InvalidTag, ValueError) as error:
            raise ArchiveDamaged(object=name.hex()) from error

    def _cipher(self, name: bytes) -> AESGCM:
        """A key per name. Why: random nonces of 96 bits are safe for some billion objects under one key, so this has no end."""
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise ArchiveKeyInvalid(
                "Encrypted archives need the package cryptography.", remedy="`pip install 'pondkeeper[archive]'`"
            ) from error
        return AESGCM(hmac.digest(self._contents, name, "sha256"))

    def _derived(self, purpose: bytes) -> bytes:
        return hmac.digest(self._secret, purpose, "sha256")
