"""The sample MCP server on the official SDK 2.x (`MCPServer`), with what only the 2026 protocol has."""

from __future__ import annotations

from typing import Any

from events import MemoryEventStore
from mcp import types
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.elicitation import render_elicitation_schema
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from oauth import OpenDoor, settings_for
from serve import RETRY, Setup, main
from tools import Answer, add_tools


def add_modern_tools(server: Any) -> None:
    """Tools for a client without a session: change events on a listen stream, and a question as a result."""

    @server.tool()
    async def change_tools(ctx: Context) -> str:
        """Tell who listens that the list of tools has changed."""
        await ctx.notify_tools_changed()
        return "changed"

    @server.tool()
    async def ask_in_rounds(question: str, ctx: Context) -> str | types.InputRequiredResult:
        """Ask by an unfinished result; the client calls again with the answer."""
        if not ctx.input_responses:
            form = types.ElicitRequestFormParams(message=question, requested_schema=render_elicitation_schema(Answer))
            return types.InputRequiredResult(
                input_requests={"name": types.ElicitRequest(params=form)}, request_state="asked"
            )
        answer = ctx.input_responses["name"]
        return f"{ctx.request_state}, {answer.action}: {answer.content['name']}"


def build(setup: Setup) -> Any:
    """The ASGI application for this setup."""
    server = MCPServer(
        "sample",
        instructions="A sample server.",
        auth_server_provider=OpenDoor() if setup.oauth else None,
        auth=settings_for(setup.issuer) if setup.oauth else None,
        log_level="ERROR",
    )
    add_tools(server, setup.streams)
    add_modern_tools(server)

    @server.tool()
    def who_calls() -> str:
        """The client that the access token was given to."""
        token = get_access_token()
        return token.client_id if token else "nobody"

    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=True, allowed_hosts=setup.hosts, allowed_origins=setup.origins
    )
    if setup.sse:
        return server.sse_app(transport_security=security)
    return server.streamable_http_app(
        json_response=setup.stateless,
        stateless_http=setup.stateless,
        event_store=None if setup.stateless else MemoryEventStore(),
        retry_interval=RETRY,
        transport_security=security,
    )


if __name__ == "__main__":
    main(build)
