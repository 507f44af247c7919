"""A visitor's connection that another process began: what it had sent there is read first."""

from __future__ import annotations

import asyncio

from relay.edge.services import Services
from relay.edge.visitor import Visitor


class Adopted(Visitor):
    """A `Visitor` that has already sent `sent`."""

    def __init__(self, services: Services, sent: bytes) -> None:
        super().__init__(services)
        self._sent = sent

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BufferedProtocol`."""
        super().connection_made(transport)
        sent, self._sent = self._sent, b""
        self.on_bytes(sent)
