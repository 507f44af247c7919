"""The sample MCP server of `make demo`: two tools on the official SDK. Prints its port as JSON, then serves.

Runs in .venvs/mcp2. The SDK's protection against DNS rebinding stays on: the server knows nothing of a tunnel.
"""

from __future__ import annotations

import asyncio
import json
import socket
from importlib.metadata import version

import uvicorn
from mcp.server.mcpserver import Context, MCPServer


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
    """Serve on a free port of 127.0.0.1 until SIGTERM."""
    server = MCPServer("relay-demo", instructions="Two tools that show that the tunnel works.", log_level="ERROR")
    server.add_tool(add)
    server.add_tool(count)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    print(json.dumps({"event": "serving", "port": port, "sdk": version("mcp")}), flush=True)
    config = uvicorn.Config(server.streamable_http_app(), log_level="warning", timeout_graceful_shutdown=1)
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
