"""A visitor by HTTP/3: one GET at the URL that it is given, with the authority that it trusts. Prints a line of JSON.

    http3.py URL AUTHORITY

Runs in .venvs/quic, which has aioquic. Names below `.localhost` are this machine.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any
from urllib.parse import urlsplit

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration

WITHIN = 15.0


class Visitor(QuicConnectionProtocol):  # type: ignore[misc]  # a library that is not in this environment
    """One connection with one request on it."""

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        self.http = H3Connection(self._quic)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.head: dict[bytes, bytes] = {}
        self.body = b""

    def quic_event_received(self, event: Any) -> None:
        """See `QuicConnectionProtocol`."""
        for one in self.http.handle_event(event):
            if isinstance(one, HeadersReceived):
                self.head.update(one.headers)
            elif isinstance(one, DataReceived):
                self.body += one.data
            if getattr(one, "stream_ended", False) and not self.ended.done():
                self.ended.set_result(None)

    def ask(self, authority: str, path: str) -> None:
        """Sends the request."""
        fields = {":method": "GET", ":scheme": "https", ":authority": authority, ":path": path}
        sent = [(name.encode(), value.encode()) for name, value in fields.items()]
        self.http.send_headers(self._quic.get_next_available_stream_id(), sent, end_stream=True)
        self.transmit()


async def main(url: str, authority: str) -> None:
    """Connects, asks, tells."""
    parts = urlsplit(url)
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=parts.hostname)
    configuration.load_verify_locations(authority)
    async with connect("127.0.0.1", parts.port, configuration=configuration, create_protocol=Visitor) as visitor:
        visitor.ask(parts.netloc, parts.path or "/")
        await asyncio.wait_for(visitor.ended, WITHIN)
        print(json.dumps({"status": int(visitor.head[b":status"]), "length": len(visitor.body)}))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
