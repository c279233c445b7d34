"""Objects between memory and store: named by a strong hash, compressed, encrypted where there is a key; opened and proved.

A sealed object is `PKS1`, one byte of flags, the length of its contents, a CRC, and a body. Its name is the hash of its
contents, so whoever opens it proves every bit of it, whatever the place it came from. The CRC is for compressed bodies
alone: some of their bits may flip and the contents come out right all the same, from a disk that has begun to fail.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import threading
import zlib

import zstandard

from pondkeeper.archive.keys import ArchiveKey
from pondkeeper.engine.fileformat import Bytes
from pondkeeper.errors import ArchiveDamaged, ArchiveKeyInvalid

DIGEST_BYTES = 32
MAX_CONTENTS_BYTES = 64 * 1024 * 1024
_MAGIC = b"PKS1"
_HEAD = struct.Struct("<4sBII")
_COMPRESSED, _ENCRYPTED = 1, 2
_LEVEL = 1
_NOT_WORTH_IT = 0.97


class Sealer:
    """Names, seals and opens. Threads may share it."""

    def __init__(self, key: ArchiveKey | None = None) -> None:
        self._key = key
        self._codecs = threading.local()

    @property
    def encrypts(self) -> bool:
        return self._key is not None

    def digest(self, contents: Bytes) -> bytes:
        """The 32 bytes that name these contents; with a key nobody else can tell whether contents they know are there."""
        digest = hashlib.sha256(contents).digest()
        return digest if self._key is None else hmac.digest(self._key.naming, digest, "sha256")

    def seal(self, contents: bytes | memoryview, digest: bytes) -> bytes:
        """The object to put under this digest, which is that of the contents."""
        body: bytes | memoryview = self._compressor().compress(contents)
        flags = _COMPRESSED
        if len(body) > _NOT_WORTH_IT * len(contents):
            body, flags = contents, 0
        if self._key is None:
            return b"".join((_HEAD.pack(_MAGIC, flags, len(contents), _crc(body, flags)), body))
        head = _HEAD.pack(_MAGIC, flags | _ENCRYPTED, len(contents), 0)
        return head + self._key.encrypt(bytes(body), digest, head)

    def open(self, sealed: bytes, digest: bytes) -> bytes:
        """The contents. Raises ArchiveDamaged when a single bit is not what was sealed under this digest."""
        return bytes(self.opened(sealed, digest))

    def opened(self, sealed: bytes, digest: bytes) -> Bytes:
        """The same, and where nothing was compressed a view of what was sealed: a copy less."""
        contents = self._contents(sealed, digest)
        if self.digest(contents) != digest:
            raise ArchiveDamaged(object=digest.hex())
        return contents

    def _contents(self, sealed: bytes, digest: bytes) -> Bytes:
        try:
            magic, flags, length, crc = _HEAD.unpack_from(sealed)
        except struct.error as error:
            raise ArchiveDamaged(object=digest.hex()) from error
        if magic != _MAGIC or flags & ~(_COMPRESSED | _ENCRYPTED) or length > MAX_CONTENTS_BYTES:
            raise ArchiveDamaged(object=digest.hex())
        body: Bytes = memoryview(sealed)[_HEAD.size :]
        if flags & _ENCRYPTED:
            body = self._decrypted(bytes(body), digest, sealed[: _HEAD.size])
        elif crc != _crc(body, flags):
            raise ArchiveDamaged(object=digest.hex())
        elif self._key is not None:  # Why: without this, who can write to the store could slip in what nobody encrypted.
            raise ArchiveDamaged("An object of the archive is not encrypted, as it should be.", object=digest.hex())
        if flags & _COMPRESSED:
            try:
                body = self._decompressor().decompress(body, max_output_size=length, allow_extra_data=False)
            except zstandard.ZstdError as error:
                raise ArchiveDamaged(object=digest.hex()) from error
        if len(body) != length:
            raise ArchiveDamaged(object=digest.hex())
        return body

    def _decrypted(self, body: bytes, digest: bytes, head: bytes) -> bytes:
        if self._key is None:
            raise ArchiveKeyInvalid("The archive is encrypted, and there is no key.")
        return self._key.decrypt(body, digest, head)

    def _compressor(self) -> zstandard.ZstdCompressor:
        """This thread's own: they must not be shared."""
        try:
            found: zstandard.ZstdCompressor = self._codecs.compressor
        except AttributeError:
            found = self._codecs.compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)
        return found

    def _decompressor(self) -> zstandard.ZstdDecompressor:
        try:
            found: zstandard.ZstdDecompressor = self._codecs.decompressor
        except AttributeError:
            found = self._codecs.decompressor = zstandard.ZstdDecompressor()
        return found


def _crc(body: Bytes, flags: int) -> int:
    return zlib.crc32(body) if flags & _COMPRESSED else 0
