"""A visitor's connection, kept, one request at a time, answers by Content-Length: for processes that make load."""

from __future__ import annotations

import asyncio
import re
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class Asker(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._heard = b""
        self._answer: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    async def ask(self, request: bytes) -> bytes:
        """The answer, or what `connection_lost` makes of its end."""
        self._heard = b""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._answer

    @property
    def waiting(self) -> asyncio.Future[bytes] | None:
        """The answer that is still to come."""
        return self._answer if self._answer is not None and not self._answer.done() else None

    def data_received(self, data: bytes) -> None:
        self._heard += data
        head, mark, body = self._heard.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if mark and length is not None and len(body) >= int(length[1]) and self.waiting is not None:
            self.waiting.set_result(self._heard)

    def connection_lost(self, exc: Exception | None) -> None:
        """The answer is what there was of it."""
        if self.waiting is not None:
            self.waiting.set_result(self._heard)
