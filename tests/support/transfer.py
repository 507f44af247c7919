"""A visitor's large transfers and event streams, checked and measured: `download`, `upload`, `events`.

They speak to `local`'s /bytes, /sink and /sse, directly or through a tunnel (then `host` is the tunnel's name). They
hold at most a piece in memory and raise nothing for a broken transfer: `Transfer.ended` and `intact` tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from tests.support.messages import Ending, Head, Malformed
from tests.support.pattern import Meter, pieces
from tests.support.rawhttp import RawClient, chunk
from tests.support.rawstream import EndOfBytes

FOREVER = 2**62


@dataclass(slots=True)
class Transfer:
    """What became of one: the meter of this end, the head that came, how it ended ("closed": its time was up)."""

    meter: Meter = field(default_factory=Meter)
    head: Head | None = None
    ended: Ending = "clean"
    answer: dict[str, Any] = field(default_factory=dict)
    """Upload: what the sink says it got."""


async def download(
    port: int, target: str, *, host: str = "localhost", seconds: float | None = None, idle: float = 30.0
) -> Transfer:
    """GET a body of the pattern. `seconds`: leave after so long. `idle`: TimeoutError after so long without a byte."""
    transfer = Transfer()
    async with await RawClient.connect(port, timeout=idle) as client:
        client.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        transfer.head = await client.head()
        transfer.meter = meter = Meter()
        body = client.body(transfer.head)
        try:
            async with asyncio.timeout(idle) as silence:
                async for piece in body:
                    meter.add(piece)
                    silence.reschedule(asyncio.get_running_loop().time() + idle)
                    if seconds is not None and meter.seconds >= seconds:
                        transfer.ended = "closed"
                        break
        except EndOfBytes as end:
            transfer.ended = end.how
        except Malformed:
            transfer.ended = "malformed"
    return transfer


async def upload(
    port: int, target: str, size: int | None, *, host: str = "localhost", seconds: float | None = None
) -> Transfer:
    """POST `size` bytes of the pattern by length, or chunked when None, until `seconds` are over; 30 s of patience."""
    transfer = Transfer()
    framing = "Transfer-Encoding: chunked" if size is None else f"Content-Length: {size}"
    async with await RawClient.connect(port, timeout=30.0) as client:
        client.send(f"POST {target} HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n\r\n".encode())
        transfer.meter = meter = Meter()
        with contextlib.suppress(EndOfBytes):  # how it ended is read below
            for piece in pieces(FOREVER if size is None else size):
                await client.send_all(chunk(piece) if size is None else piece)
                meter.count(len(piece))
                if client.stream.unread() or (seconds is not None and meter.seconds >= seconds):
                    break
            if size is None:
                client.send(b"0\r\n\r\n")
        response = await client.response(b"POST")
        transfer.head, transfer.ended = response.head, response.ended
        with contextlib.suppress(ValueError):
            transfer.answer = json.loads(response.body)
    return transfer


@dataclass(frozen=True, slots=True)
class Arrival:
    """One server-sent event: its fields, when it came, and how long after it was sent (seconds; /sse tells)."""

    fields: dict[str, str]
    at: float
    delay: float


async def events(client: RawClient, target: str, host: str = "localhost") -> AsyncIterator[Arrival]:
    """GET an event stream and yield its events as they come; raises EndOfBytes where it breaks off."""
    client.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n".encode())
    head = await client.head()
    buffer = b""
    async for piece in client.body(head):
        now = time.monotonic()
        buffer += piece
        *complete, buffer = buffer.split(b"\n\n")
        for block in complete:
            fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if ": " in line)
            sent = json.loads(fields.get("data", "{}")).get("at", now)
            yield Arrival(fields, now, now - sent)
