"""What a TCP connection is told beyond what the event loop tells it. A socket that is gone, or none, is left alone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Final

_AT_ONCE: Final = struct.pack("ii", 1, 0)


def reset_on_close(transport: asyncio.BaseTransport) -> None:
    """Its end will be a reset and no FIN; what was written and has not arrived is lost."""
    _set(transport, socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """The kernel asks now and then whether the other side is still there."""
    _set(transport, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def keep_little_unsent(transport: asyncio.BaseTransport, most: int) -> None:
    """The kernel calls it full once `most` bytes wait that it cannot send yet (where it knows how to)."""
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        _set(transport, socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, most)


def _set(transport: asyncio.BaseTransport, level: int, option: int, value: int | bytes) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(level, option, value)
