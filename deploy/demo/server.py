"""A sample MCP server on the official SDK: three tools, at http://demo-server:3000/mcp until SIGTERM.

It knows nothing of a tunnel: the agent beside it calls it by its own name, and the SDK's protection against DNS
rebinding stays on.
"""

from __future__ import annotations

import asyncio

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings

PORT = 3000
OWN_NAME = f"demo-server:{PORT}"


def echo(text: str) -> str:
    """The text that was sent."""
    return text


def add(a: int, b: int) -> int:
    """The sum of two numbers."""
    return a + b


async def count(to: int, ctx: Context) -> str:
    """Count slowly, with a progress notification for each number."""
    for number in range(1, to + 1):
        await ctx.report_progress(number, to)
        await asyncio.sleep(0.1)
    return f"counted to {to}"


def main() -> None:
    """Serves; ends running requests within a second of SIGTERM."""
    server = MCPServer("relay-demo", instructions="Three tools that show that the tunnel works.", log_level="ERROR")
    for tool in (echo, add, count):
        server.add_tool(tool)
    security = TransportSecuritySettings(allowed_hosts=[OWN_NAME], allowed_origins=[f"http://{OWN_NAME}"])
    app = server.streamable_http_app(transport_security=security, host="0.0.0.0")
    uvicorn.run(app, host="0.0.0.0", port=PORT, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
