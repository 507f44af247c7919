"""Lets a transport over TLS read no further than what was handed on.

Told to pause, it goes on to read from its socket, up to 256 KiB, and hands on none of it. When the peer's end is among
what it reads, uvloop tells the loss of the connection and throws the rest away. With this it stops at the first bytes
that it cannot hand on: the end stays in the kernel, behind them.
"""

from __future__ import annotations

import asyncio


def never_read_ahead(transport: asyncio.BaseTransport) -> None:
    """Once, of a transport that is new; nothing for one without TLS."""
    limit = getattr(transport, "set_read_buffer_limits", None)
    if limit is not None:
        limit(1)  # not 0: by that they stop and go on in turns while nothing waits, and a close waits for its deadline
