"""The scripted client on the official SDK 2.x (`ClientSession` and `Client` over httpx2)."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import httpx2
import names  # noqa: F401  (first: the resolver)
from authorise import Person, Wallet, metadata
from mcp import Client, ClientSession, types
from mcp.client.auth import OAuthClientProvider
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult
from play import main
from seen import Seen

TIMEOUT = httpx2.Timeout(30, read=300)  # seconds


class Sdk2:
    """What is spelled differently in 2.x."""

    cancels_itself = True  # an abandoned call sends notifications/cancelled, or closes its stream

    @asynccontextmanager
    async def plain_http(self, **options: Any) -> Any:
        """An HTTP client without a session."""
        seen = Seen()
        async with httpx2.AsyncClient(timeout=TIMEOUT, event_hooks=seen.hooks(), **options) as seen.http:
            yield seen

    @asynccontextmanager
    async def connect(self, url: str, callbacks: Any, *, sse: bool = False, keep: bool = False, **options: Any) -> Any:
        """A session that is not initialized yet, and what its HTTP client sees; `keep`: no DELETE at the end."""
        async with self.plain_http(**options) as seen:
            transport = sse_client(url) if sse else None
            transport = transport or streamable_http_client(url, http_client=seen.http, terminate_on_close=not keep)
            async with transport as (read, write), ClientSession(read, write, **wired(callbacks)) as session:
                yield session, seen

    @asynccontextmanager
    async def negotiate(self, url: str, callbacks: Any) -> Any:
        """A `Client` that probes for the 2026 protocol and falls back to the handshake."""
        async with self.plain_http() as seen:
            transport = streamable_http_client(url, http_client=seen.http)
            async with Client(transport, **wired(callbacks)) as client:
                yield client, seen

    def version(self, hello: types.InitializeResult) -> str:
        """The protocol version that was agreed on."""
        return str(hello.protocol_version)

    def tool_request(self, name: str, arguments: dict[str, Any]) -> Any:
        """A tool call for `send_request`."""
        return types.CallToolRequest(params=types.CallToolRequestParams(name=name, arguments=arguments))

    def authorisation(self, endpoint: str) -> OAuthClientProvider:
        """The SDK's provider with a person who agrees."""
        person = Person(lambda: httpx2.AsyncClient(timeout=TIMEOUT))

        async def answer() -> AuthorizationCodeResult:
            code, state = person.answer()
            return AuthorizationCodeResult(code=code, state=state)

        return OAuthClientProvider(endpoint, metadata(), Wallet(), person.open, answer)


def wired(callbacks: Any) -> dict[str, Any]:
    """The callbacks by the names of the constructors."""
    return {
        "sampling_callback": callbacks.sampling,
        "elicitation_callback": callbacks.elicitation,
        "list_roots_callback": callbacks.roots,
        "logging_callback": callbacks.logging,
        "message_handler": callbacks.message,
    }


if __name__ == "__main__":
    main(Sdk2())
