"""Tokens: `pk_<id>_<secret>`. The id is public and finds the key; of the secret only the SHA-256 is kept.

Why SHA-256 and no slow hash: the secret is 256 random bits, which nobody guesses, and every request pays for the hash.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field

from pondkeeper.errors import Unauthenticated

ID_LENGTH = 12
SECRET_LENGTH = 43  # characters of 62: 256 bits
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_LETTERS = _DIGITS + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TOKEN = re.compile(rf"pk_([0-9a-z]{{{ID_LENGTH}}})_([0-9A-Za-z]{{{SECRET_LENGTH}}})\Z", re.ASCII)
_MAX_HEADER = 4096


@dataclass(frozen=True, slots=True)
class Token:
    """The two halves of a token. Its repr never shows the secret."""

    key_id: str
    digest: bytes = field(repr=False)


def new_token() -> tuple[str, Token]:
    """A new token as text, shown once, and what is kept of it."""
    key_id = "".join(secrets.choice(_DIGITS) for _ in range(ID_LENGTH))
    secret = "".join(secrets.choice(_LETTERS) for _ in range(SECRET_LENGTH))
    return f"pk_{key_id}_{secret}", Token(key_id, digest_of(secret))


def digest_of(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("ascii")).digest()


def parse_token(text: str) -> Token | None:
    """The token that `text` is; None when it is none."""
    match = _TOKEN.match(text)
    return None if match is None else Token(match[1], digest_of(match[2]))


def token_in_header(authorization: str | bytes | None) -> str:
    """The token of an `Authorization: Bearer …` header, unchecked. Raises Unauthenticated."""
    if not authorization:
        raise Unauthenticated("The request carries no key.")
    text = authorization.decode("latin-1") if isinstance(authorization, bytes) else authorization
    scheme, _, token = text[:_MAX_HEADER].strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("The Authorization header is not of the form `Bearer pk_…`.")
    return token.strip()
