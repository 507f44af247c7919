"""What the end of a connection leaves to be found out, below what asyncio tells: was it on purpose, did more come.

This room alone looks behind a transport, at its socket and its TLS state; where there is nothing to see it says the
careful thing: not on purpose, nothing more.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from relay.mux.tcp import is_tls

MOST_LEFT_OVER: Final = 256 * 1024
"""Bytes that are still read from a connection which broke while we wrote to it."""


def ended_on_purpose(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer said itself that its bytes are complete, asked while its end is being told.

    A FIN says so in the clear. Under TLS anybody on the way can send one, so that only `close_notify` counts (RFC 8446
    §6.1), and asyncio does not tell the two apart.
    """
    tls = transport.get_extra_info("ssl_object")
    if tls is None:
        return True
    try:
        return tls.read(1) == b""  # type: ignore[no-any-return]
    except ssl.SSLError:
        return False


def left_over(transport: asyncio.BaseTransport) -> bytes:
    """What the peer said before it broke off, asked while the loss of the connection is being told.

    A transport gives up at the first write that fails, although an answer may lie unread in the kernel: an early 413
    to an upload, say.
    """
    wire = transport.get_extra_info("socket")
    if wire is None or is_tls(transport):
        return b""
    try:
        with wire.dup() as copy:
            copy.setblocking(False)
            return copy.recv(MOST_LEFT_OVER)  # type: ignore[no-any-return]
    except (AttributeError, OSError):
        return b""
