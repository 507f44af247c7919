"""The tools of the sample MCP servers: what each test needs to provoke, in words that both SDK generations understand.

Runs inside an SDK environment, not in the project's own. A tool that waits is released by another tool or the client,
never by a clock; `key` is made up by the client, so that parallel sessions do not meet. Names no transport.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from mcp import types
from pydantic import BaseModel
from watch import GetStreams

try:
    from mcp.server.mcpserver import Context
except ImportError:
    from mcp.server.fastmcp import Context

PATIENCE = 20.0  # seconds a tool waits for the client before it gives the test up


class Answer(BaseModel):
    """What `ask_person` asks for."""

    name: str


class Memory:
    """What tools of one process remember for each other, by the client's key."""

    def __init__(self) -> None:
        self.steps: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(0))
        self.cancelled: dict[str, asyncio.Event] = defaultdict(asyncio.Event)


async def log(ctx: Context, text: str, *, standalone: bool = False) -> None:
    """Send a log notification on this call's own stream, or on the session's GET stream."""
    related = None if standalone else ctx.request_id
    await ctx.session.send_log_message(level="info", data=text, related_request_id=related)


def add_plain_tools(server: Any) -> None:
    """Tools that answer at once or after a silence."""

    @server.tool()
    def add(a: int, b: int) -> int:
        """The sum of two numbers."""
        return a + b

    @server.tool()
    def echo(text: str) -> str:
        """The text as it came."""
        return text

    @server.tool()
    def fail(text: str) -> str:
        """An error with this text."""
        raise ValueError(text)

    @server.tool()
    async def silent(seconds: float) -> str:
        """Say nothing for so many seconds, then answer."""
        await asyncio.sleep(seconds)
        return "still here"


def add_waiting_tools(server: Any, memory: Memory) -> None:
    """Tools that report progress, wait for `go_on`, or wait to be cancelled."""

    @server.tool()
    async def walk(key: str, steps: int, ctx: Context) -> str:
        """Report progress; each further step waits for `go_on`, so events that are held back would stop it."""
        for step in range(1, steps + 1):
            await ctx.report_progress(step, steps, f"step {step}")
            await asyncio.wait_for(memory.steps[key].acquire(), PATIENCE)
        return f"walked {steps}"

    @server.tool()
    async def tell(key: str, parts: int, ctx: Context) -> str:
        """Log one part after the other; each further one waits for `go_on`."""
        for part in range(1, parts + 1):
            await log(ctx, f"part {part}")
            await asyncio.wait_for(memory.steps[key].acquire(), PATIENCE)
        return f"told {parts}"

    @server.tool()
    async def go_on(key: str) -> str:
        """Release one step of `walk` or `tell`."""
        memory.steps[key].release()
        return "ok"

    @server.tool()
    async def wait_until_cancelled(key: str, ctx: Context) -> str:
        """Report that it started, then wait for ever; `was_cancelled` knows when it was ended."""
        try:
            await ctx.report_progress(0, 1, "waiting")
            await asyncio.Event().wait()
        except BaseException:
            memory.cancelled[key].set()
            raise
        return "never"

    @server.tool()
    async def was_cancelled(key: str) -> bool:
        """Whether `wait_until_cancelled` was ended (waits a while for that)."""
        try:
            await asyncio.wait_for(memory.cancelled[key].wait(), PATIENCE)
        except TimeoutError:
            return False
        return True


def add_asking_tools(server: Any, streams: GetStreams) -> None:
    """Tools that ask the client something, or speak on the session's GET stream, and one that is interrupted."""

    @server.tool()
    async def ask_model(prompt: str, ctx: Context) -> str:
        """A sampling request to the client, on this call's own stream."""
        message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text=prompt))
        answer = await ctx.session.create_message([message], max_tokens=16, related_request_id=ctx.request_id)
        return f"the model says: {answer.content.text}"

    @server.tool()
    async def ask_person(question: str, ctx: Context) -> str:
        """An elicitation request to the client, on this call's own stream."""
        answer = await ctx.elicit(question, Answer)
        return f"{answer.action}: {answer.data.name}" if answer.action == "accept" else answer.action

    @server.tool()
    async def ask_roots(ctx: Context) -> list[str]:
        """A roots request to the client, on the session's GET stream."""
        await streams.wait_open(ctx.request_context.request.headers["mcp-session-id"], PATIENCE)
        answer = await ctx.session.list_roots()
        return [str(root.uri) for root in answer.roots]

    @server.tool()
    async def announce(text: str, ctx: Context) -> str:
        """A log notification on the session's GET stream."""
        await streams.wait_open(ctx.request_context.request.headers["mcp-session-id"], PATIENCE)
        await log(ctx, text, standalone=True)
        return "announced"

    @server.tool()
    async def interrupted(ctx: Context) -> str:
        """Close this call's own stream in the middle; the rest is there for who resumes it."""
        await log(ctx, "before the gap")
        await ctx.close_sse_stream()
        await log(ctx, "after the gap")
        return "resumed"


def add_tools(server: Any, streams: GetStreams) -> None:
    """Give a `FastMCP` (1.x) or `MCPServer` (2.x) all tools of the scenario."""
    memory = Memory()
    add_plain_tools(server)
    add_waiting_tools(server, memory)
    add_asking_tools(server, streams)
