"""What reached a sample MCP server: an ASGI wrapper that notes each request, and the page `/facts` that tells a test.

It sees the HTTP side only: method, path, session, `Last-Event-ID`, the names that visitor and relay sent, status,
and whether the peer left before the end. Decides nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import Any

TOLD = ("host", "origin", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-for", "forwarded", "last-event-id")


class GetStreams:
    """Which sessions have their GET stream open."""

    def __init__(self) -> None:
        self._open: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def opened(self, session: str) -> None:
        """The head of a GET stream was sent."""
        self._open[session].set()

    def closed(self, session: str) -> None:
        """That stream has ended."""
        self._open[session].clear()

    async def wait_open(self, session: str, seconds: float) -> None:
        """Wait until the session's GET stream is open; raises TimeoutError after so many seconds."""
        await asyncio.wait_for(self._open[session].wait(), seconds)


class Watch:
    """ASGI application around a sample server's application."""

    def __init__(self, app: Any, streams: GetStreams) -> None:
        self.app = app
        self.streams = streams
        self.requests: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == "/facts":
            await self._tell(send)
        else:
            await self._note(scope, receive, send)

    async def _note(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        session = headers.get("mcp-session-id")
        fact: dict[str, Any] = {"method": scope["method"], "path": scope["path"], "session": session, "status": None}
        fact["left"] = False
        fact["headers"] = {name: headers[name] for name in TOLD if name in headers}
        self.requests.append(fact)
        standalone = scope["method"] == "GET" and session is not None and "last-event-id" not in headers

        async def watched_receive() -> Any:
            message = await receive()
            fact["left"] = fact["left"] or (message["type"] == "http.disconnect" and not fact.get("complete"))
            return message

        async def watched_send(message: Any) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                fact["status"] = message["status"]
                fact["session"] = session or dict(message["headers"]).get(b"mcp-session-id", b"").decode() or None
                if standalone and message["status"] == 200:
                    self.streams.opened(session)
            elif not message.get("more_body"):
                fact["complete"] = True

        try:
            await self.app(scope, watched_receive, watched_send)
        finally:
            if standalone:
                self.streams.closed(session)

    async def _tell(self, send: Any) -> None:
        body = json.dumps(self.requests).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
