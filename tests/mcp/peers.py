"""The MCP peers as processes: sample servers and scripted clients of both SDK generations, and a relay between them.

The SDKs live in environments of their own (`scripts/sdk-envs`; MCP1_PYTHON and MCP2_PYTHON name other interpreters), so
nothing here imports them. This room starts them and reads what they print; it judges nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.child import ROOT, Child, ChildError
from tests.support.processes import DOMAIN, AgentProcess, Edge, RelayProcess

HERE = Path(__file__).parent
START_DEADLINE = 30.0  # seconds: importing an SDK is slow on a busy machine
RUN_DEADLINE = 90.0  # seconds for one script

# Shorter than the silences in the scripts, so that a timeout that hits the wrong stream shows.
SHORT = ("--idle-timeout", "1", "--head-timeout", "2", "--response-head-timeout", "2", "--ping-interval", "1")
SILENCE = 4.0  # seconds

Transcript = list[dict[str, Any]]


def interpreter(sdk: int) -> str:
    """The Python that has this generation of the SDK; raises ChildError if there is none."""
    default = ROOT / ".venvs" / f"mcp{sdk}" / "bin" / "python"
    path = os.environ.get(f"MCP{sdk}_PYTHON", str(default))
    if not Path(path).exists():
        raise ChildError(f"{path} is missing: run scripts/sdk-envs first")
    return path


class McpServer(Child):
    """A sample server; `start` returns once it has its port. Flags: see servers/serve.py."""

    def __init__(self, sdk: int, *flags: str) -> None:
        super().__init__([interpreter(sdk), str(HERE / f"servers/sdk{sdk}.py"), *flags], name=f"MCP server {sdk}.x")
        self.port = 0

    async def start(self) -> None:
        """Start and wait for the port; raises ChildError with what it said otherwise."""
        await super().start()
        self.port = (await self.wait_event("serving", START_DEADLINE))["port"]

    @property
    def url(self) -> str:
        """Its own address, without a tunnel."""
        return f"http://127.0.0.1:{self.port}"


class McpClient(Child):
    """A scripted client, which plays as many scripts as it is asked to, one after the other."""

    def __init__(self, sdk: int) -> None:
        super().__init__([interpreter(sdk), str(HERE / f"clients/sdk{sdk}.py")], name=f"MCP client {sdk}.x")

    async def play(self, script: str, base: str, silence: float = 0.0) -> Transcript:
        """Run a script against an address; returns its transcript, raises ChildError if it failed."""
        assert self.process.stdin is not None
        before = len(self.events)
        self.process.stdin.write(f"{script} {base} {silence}\n".encode())
        event = await self.wait_event(lambda event: True, RUN_DEADLINE + silence, before)
        if event["event"] != "transcript":
            raise ChildError(f"the script {script} failed at {base}\n{event['trace']}\n{self.stderr}")
        steps: Transcript = event["steps"]
        return steps


@dataclass(frozen=True, slots=True)
class Exposed:
    """A sample server and the tunnel to it."""

    server: McpServer
    agent: AgentProcess
    url: str


class House:
    """One relay and, started when first asked for, clients, and servers each with an agent; ends them all together."""

    def __init__(self, *serve_args: str, edge: Edge = "protocol") -> None:
        self.relay = RelayProcess(args=serve_args, edge=edge)
        self._stack = contextlib.AsyncExitStack()
        self._exposed: dict[tuple[object, ...], Exposed] = {}
        self._clients: dict[int, McpClient] = {}

    async def __aenter__(self) -> House:
        await self._stack.__aenter__()
        await self._stack.enter_async_context(self.relay)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    async def play(self, sdk: int, script: str, base: str, silence: float = 0.0) -> Transcript:
        """Let the scripted client of this generation play; see `McpClient.play`."""
        if sdk not in self._clients:
            self._clients[sdk] = await self._stack.enter_async_context(McpClient(sdk))
        return await self._clients[sdk].play(script, base, silence)

    def address(self, name: str) -> str:
        """The public address of a name."""
        return f"http://{name}.{DOMAIN}:{self.relay.public_port}"

    async def expose(self, sdk: int, *flags: str, name: str = "", agent_args: Sequence[str] = ()) -> Exposed:
        """The sample server with these flags behind a tunnel, the same one each time."""
        key = (sdk, name, *flags, *agent_args)
        if key not in self._exposed:
            name = name or f"mcp{sdk}-{len(self._exposed)}"
            server = await self._stack.enter_async_context(McpServer(sdk, *flags))
            agent = AgentProcess(
                server.port,
                relay_port=self.relay.agents_port,
                key_file=self.relay.key_file,
                subdomain=name,
                args=agent_args,
            )
            await self._stack.enter_async_context(agent)
            await agent.established()
            self._exposed[key] = Exposed(server, agent, self.address(name))
        return self._exposed[key]


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer as it came: status, header fields by lower-case name, body."""

    status: int
    headers: dict[str, str]
    body: bytes


async def ask(port: int, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answer:
    """One request on a connection of its own, with exactly these headers and framing; for answers that end."""
    fields = {**headers, "Content-Length": str(len(body)), "Connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        received = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
    lines, _, rest = received.partition(b"\r\n\r\n")
    status, *found = lines.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in found)}
    return Answer(int(status.split()[1]), fields, rest)
