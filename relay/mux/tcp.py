"""What a TCP connection is told and asked beyond what the event loop does; nothing of one that has no socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from typing import Final

if sys.platform != "win32":
    from fcntl import ioctl
    from termios import FIONREAD, TIOCOUTQ

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


def is_tls(transport: asyncio.BaseTransport) -> bool:
    """Whether the connection is encrypted."""
    return transport.get_extra_info("ssl_object") is not None


def unconfirmed(transport: asyncio.BaseTransport) -> int:
    """Bytes that the kernel was given and the peer's side has not confirmed (Linux tells; elsewhere 0)."""
    if sys.platform != "linux":
        return 0
    return _count(transport, TIOCOUTQ)


def unread(transport: asyncio.BaseTransport) -> int:
    """Bytes that came and that the kernel still has (0 on Windows)."""
    if sys.platform == "win32":
        return 0
    return _count(transport, FIONREAD)


def _count(transport: asyncio.BaseTransport, request: int) -> int:
    if sys.platform == "win32":
        return 0
    sock = transport.get_extra_info("socket")
    if sock is None:
        return 0
    try:
        return int.from_bytes(ioctl(sock.fileno(), request, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def _set(transport: asyncio.BaseTransport, level: int, option: int, value: int | bytes) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(level, option, value)
