"""The MCP client of `make demo`: calls both tools at the address it is given, prints each result as a line of JSON.

Runs in .venvs/mcp2 and uses the official SDK as anybody would; only the address is a tunnel's.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any, cast

from mcp import Client

system_getaddrinfo: Any = socket.getaddrinfo


def getaddrinfo(host: object, *args: object, **kwargs: object) -> object:
    """Names below `.localhost` are this machine (RFC 6761 §6.3): browsers and curl know that, many systems do not."""
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    local = isinstance(name, str) and name.rstrip(".").endswith(".localhost")
    return system_getaddrinfo("127.0.0.1" if local else host, *args, **kwargs)


def tell(**fields: object) -> None:
    """One event on stdout."""
    print(json.dumps(fields), flush=True)


async def main(url: str) -> None:
    """Connect, list the tools, call both."""
    async with Client(url) as client:
        tools = await client.list_tools()
        tell(event="connected", protocol=client.protocol_version, tools=[tool.name for tool in tools.tools])
        result = await client.call_tool("add", {"a": 19, "b": 23})
        tell(event="called", call="add(19, 23)", answer=result.content[0].text)
        progress: list[str] = []

        async def on_progress(done: float, total: float | None, message: str | None) -> None:
            progress.append(f"{done:g}")

        result = await client.call_tool("count", {"to": 5}, progress_callback=on_progress)
        tell(event="called", call="count(5)", answer=result.content[0].text, progress=progress)
    tell(event="done")


if __name__ == "__main__":
    socket.getaddrinfo = cast(Any, getaddrinfo)
    asyncio.run(main(sys.argv[1]))
