"""Stops a transport's reading so that nothing is lost when its peer ends it meanwhile, by TLS too.

A transport over TLS that is told to pause goes on to read from its socket, up to 256 KiB, and hands on none of it. When
the peer's end is among what it reads, uvloop tells the loss of the connection and throws the rest away; asyncio's own
keeps it. So such a one gets no room for it either: then the end stays in the kernel, behind what comes before it.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast


class _Limited(Protocol):
    """What only a transport over TLS has, and the types of the standard library do not tell."""

    def set_read_buffer_limits(self, high: int | None = None) -> None:
        """So many bytes may be read ahead; without `high` as many as usual."""

    def is_reading(self) -> bool:
        """Whether it is not paused."""

    def is_closing(self) -> bool:
        """Whether it ends, or has ended."""


def stop_reading(transport: asyncio.Transport) -> None:
    """Reads no more, until `read_on`. The transport is not closing."""
    transport.pause_reading()
    if hasattr(transport, "set_read_buffer_limits"):
        cast(_Limited, transport).set_read_buffer_limits(0)


def read_on(transport: asyncio.Transport) -> None:
    """Reads again. The transport is not closing."""
    transport.resume_reading()
    if hasattr(transport, "set_read_buffer_limits"):
        # Behind the call that hands on what was read before, which the transport has just asked for.
        asyncio.get_running_loop().call_soon(_read_ahead, cast(_Limited, transport))


def _read_ahead(transport: _Limited) -> None:
    if transport.is_reading() and not transport.is_closing():
        transport.set_read_buffer_limits()
