"""TLS: the certificate of the settings as a context for the listening sockets."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

import structlog

from pondkeeper.errors import SettingInvalid

if TYPE_CHECKING:
    from pondkeeper.settings import ServerSettings

_log = structlog.get_logger(__name__)


def tls_context(settings: ServerSettings) -> ssl.SSLContext | None:
    """What HTTPS is served with, TLS 1.2 at least; None where no certificate is given. Raises SettingInvalid; it blocks."""
    if not settings.tls_cert:
        if settings.tls_key:
            raise SettingInvalid("`server.tls_key` is given without `server.tls_cert`.", remedy="Give both files.")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    key = settings.tls_key or settings.tls_cert
    try:
        # Why a password: without one OpenSSL would ask for it on the terminal, and the keeper would stand still.
        context.load_cert_chain(settings.tls_cert, key, password="")
        is_open_to_others = bool(os.stat(key).st_mode & 0o077)
    except (OSError, ValueError) as error:
        raise _unusable(error) from error
    if is_open_to_others:
        _log.warning("other users can read the private key of the certificate", remedy="chmod 600")
    return context


def _unusable(error: OSError | ValueError) -> SettingInvalid:
    if isinstance(error, ssl.SSLError):
        reason = "they are no PEM files, do not belong together, or the key has a password"
    else:
        reason = getattr(error, "strerror", None) or "they cannot be read"
    return SettingInvalid(
        f"The certificate or its key cannot be used: {reason}.",
        remedy="`server.tls_cert` and `server.tls_key` name PEM files that the keeper's user may read.",
        private=str(error),
    )
