"""The sample MCP server on the official SDK 1.x (`FastMCP`)."""

from __future__ import annotations

from typing import Any

from events import MemoryEventStore
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.fastmcp import FastMCP
from mcp.server.transport_security import TransportSecuritySettings
from oauth import OpenDoor, settings_for
from serve import RETRY, Setup, main
from tools import add_tools


def build(setup: Setup) -> Any:
    """The ASGI application for this setup."""
    server = FastMCP(
        "sample",
        instructions="A sample server.",
        auth_server_provider=OpenDoor() if setup.oauth else None,
        auth=settings_for(setup.issuer) if setup.oauth else None,
        event_store=None if setup.stateless else MemoryEventStore(),
        retry_interval=RETRY,
        json_response=setup.stateless,
        stateless_http=setup.stateless,
        log_level="ERROR",
        transport_security=TransportSecuritySettings(
            enable_dns_rebinding_protection=True, allowed_hosts=setup.hosts, allowed_origins=setup.origins
        ),
    )
    add_tools(server, setup.streams)

    @server.tool()
    def who_calls() -> str:
        """The client that the access token was given to."""
        token = get_access_token()
        return token.client_id if token else "nobody"

    return server.sse_app() if setup.sse else server.streamable_http_app()


if __name__ == "__main__":
    main(build)
