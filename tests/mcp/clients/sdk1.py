"""The scripted client on the official SDK 1.x (`ClientSession` over httpx)."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import httpx
import names  # noqa: F401  (first: the resolver)
from authorise import Person, Wallet, metadata
from mcp import ClientSession, types
from mcp.client.auth import OAuthClientProvider
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from play import main
from seen import Seen

TIMEOUT = httpx.Timeout(30, read=300)  # seconds


class Sdk1:
    """What is spelled differently in 1.x."""

    cancels_itself = False  # an abandoned call sends no notifications/cancelled

    @asynccontextmanager
    async def plain_http(self, **options: Any) -> Any:
        """An HTTP client without a session."""
        seen = Seen()
        async with httpx.AsyncClient(timeout=TIMEOUT, event_hooks=seen.hooks(), **options) as seen.http:
            yield seen

    @asynccontextmanager
    async def connect(self, url: str, callbacks: Any, *, sse: bool = False, keep: bool = False, **options: Any) -> Any:
        """A session that is not initialized yet, and what its HTTP client sees; `keep`: no DELETE at the end."""
        async with self.plain_http(**options) as seen:
            transport = sse_client(url) if sse else None
            transport = transport or streamable_http_client(url, http_client=seen.http, terminate_on_close=not keep)
            async with transport as (read, write, *_), self._session(read, write, callbacks) as session:
                session.seen = seen
                yield session, seen

    def _session(self, read: Any, write: Any, callbacks: Any) -> ClientSession:
        return ClientSession(
            read,
            write,
            sampling_callback=callbacks.sampling,
            elicitation_callback=callbacks.elicitation,
            list_roots_callback=callbacks.roots,
            logging_callback=callbacks.logging,
            message_handler=callbacks.message,
        )

    def version(self, hello: types.InitializeResult) -> str:
        """The protocol version that was agreed on."""
        return str(hello.protocolVersion)

    def tool_request(self, name: str, arguments: dict[str, Any]) -> Any:
        """A tool call for `send_request`."""
        params = types.CallToolRequestParams(name=name, arguments=arguments)
        return types.ClientRequest(types.CallToolRequest(params=params))

    async def cancel(self, session: Any, tool: str) -> None:
        """Send notifications/cancelled for the last call of this tool."""
        params = types.CancelledNotificationParams(requestId=session.seen.last_call(tool), reason="abandoned")
        await session.send_notification(types.ClientNotification(types.CancelledNotification(params=params)))

    def authorisation(self, endpoint: str) -> OAuthClientProvider:
        """The SDK's provider with a person who agrees."""
        person = Person(lambda: httpx.AsyncClient(timeout=TIMEOUT))

        async def answer() -> tuple[str, str | None]:
            return person.answer()

        return OAuthClientProvider(endpoint, metadata(), Wallet(), person.open, answer)


if __name__ == "__main__":
    main(Sdk1())
