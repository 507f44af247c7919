"""Why there is no connection, in a few words for people; no secret is in them, and no name of a Python class."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from contextlib import suppress

_WORDS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.ENOTCONN: "connection reset",
    errno.EHOSTUNREACH: "no route to the host",
    errno.ENETUNREACH: "network unreachable",
}
_FOR_NOW = (socket.EAI_AGAIN,)


def in_words(error: OSError | UnicodeError) -> str:
    """What an attempt to look up, to connect or to agree on TLS has ended with."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or 'unknown reason').replace('_', ' ').lower()}"
    if isinstance(error, socket.gaierror):
        return "the name does not resolve" + (": no name server answers" if error.errno in _FOR_NOW else "")
    if isinstance(error, OSError) and error.errno is not None:
        with suppress(ValueError):
            return _WORDS.get(error.errno) or os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
