"""The scripted run of an MCP client, the same for both SDK generations, direct and through a tunnel.

Each `step_…` does one thing that the protocol promises and notes what came of it. What the generations spell
differently stands behind `sdk` (`Sdk1`, `Sdk2`); no step knows whether a tunnel is in between.
"""

from __future__ import annotations

import uuid
from collections import Counter
from functools import partial
from typing import Any

import anyio
from authorise import unauthorised_answers
from mcp import types
from mcp.shared.message import ClientMessageMetadata
from transcript import Transcript, shape

PATIENCE = 30.0  # seconds for any single wait
ACCEPT = {"accept": "application/json, text/event-stream"}


class Callbacks:
    """What the server asked of this client and told it; answers what a test expects."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.asked: list[Any] = []
        self.progress: list[Any] = []
        self._more = anyio.Event()

    def note(self, text: str) -> None:
        """The server said something; wakes who waits."""
        self.told.append(text)
        self._more.set()
        self._more = anyio.Event()

    async def heard(self, text: str) -> None:
        """Wait until the server has said this; raises TimeoutError."""
        with anyio.fail_after(PATIENCE):
            while text not in self.told:
                await self._more.wait()

    async def sampling(self, context: Any, params: Any) -> Any:
        """The model's answer repeats the prompt."""
        prompt = params.messages[0].content.text
        self.asked.append({"sampling": prompt})
        content = types.TextContent(type="text", text=f"echo of {prompt}")
        return types.CreateMessageResult(role="assistant", content=content, model="none")

    async def elicitation(self, context: Any, params: Any) -> Any:
        """The person's answer is always the same."""
        self.asked.append({"elicitation": params.message})
        return types.ElicitResult(action="accept", content={"name": "Ada"})

    async def roots(self, context: Any) -> Any:
        """One root."""
        self.asked.append({"roots": True})
        return types.ListRootsResult(roots=[types.Root(uri="file:///tmp/work", name="work")])

    async def logging(self, params: Any) -> None:
        """A log notification."""
        self.note(str(params.data))

    async def message(self, message: Any) -> None:
        """Any other message; a transport that failed ends the run."""
        if isinstance(message, Exception) and "unknown request ID" not in str(message):
            raise message


def parts(callbacks: Callbacks) -> list[str]:
    """The parts of a told story that arrived."""
    return [text for text in callbacks.told if text.startswith("part")]


class Run:
    """One scripted run against one address."""

    def __init__(self, sdk: Any, base: str, endpoint: str) -> None:
        self.sdk = sdk
        self.base = base
        self.endpoint = base + endpoint
        self.log = Transcript(base)

    def key(self) -> str:
        """A key that no other run uses."""
        key = uuid.uuid4().hex
        self.log.hide(key, "KEY")
        return key

    async def call(self, session: Any, tool: str, **arguments: Any) -> Any:
        """Call a tool and note its result."""
        with anyio.fail_after(PATIENCE):
            result = await session.call_tool(tool, arguments)
        self.log.add(tool, result)
        return result

    async def step_tools(self, session: Any) -> None:
        """List the tools, and call those that answer at once: small, large, not ASCII, and an error."""
        listed = await session.list_tools()
        self.log.add("tools/list", sorted(tool.name for tool in listed.tools))
        await self.call(session, "add", a=2, b=3)
        await self.call(session, "echo", text="Grüße, 世界 \u0000\r\n\r\ndata: no event\u2028")
        large = "0123456789abcdef" * 16384  # 256 KiB each way
        answer = await session.call_tool("echo", {"text": large})
        self.log.add("echo, large", answer.content[0].text == large)
        await self.call(session, "fail", text="on purpose")
        await self.call(session, "no_such_tool")

    async def step_progress(self, session: Any) -> None:
        """Each progress notification must arrive before the next one is sent."""
        key, seen = self.key(), []
        async with anyio.create_task_group() as tasks:

            async def on_progress(progress: float, total: float | None, message: str | None) -> None:
                seen.append([progress, total, message])
                tasks.start_soon(session.call_tool, "go_on", {"key": key})

            with anyio.fail_after(PATIENCE):
                result = await session.call_tool("walk", {"key": key, "steps": 5}, progress_callback=on_progress)
        self.log.add("walk", {"progress": seen, "result": result})

    async def step_requests(self, session: Any, callbacks: Callbacks) -> None:
        """The server asks: sampling and elicitation on the call's stream, roots on the GET stream."""
        await self.call(session, "ask_model", prompt="the capital of France")
        await self.call(session, "ask_person", question="Who are you?")
        await self.call(session, "ask_roots")
        self.log.add("asked", callbacks.asked)

    async def step_cancel(self, session: Any) -> None:
        """Abandon a call that has begun; the tool must learn of it."""
        key, begun = self.key(), anyio.Event()

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            begun.set()

        async def abandoned() -> None:
            arguments = {"key": key}
            await session.call_tool("wait_until_cancelled", arguments, progress_callback=on_progress)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(abandoned)
            with anyio.fail_after(PATIENCE):
                await begun.wait()
            tasks.cancel_scope.cancel()
        if not self.sdk.cancels_itself:
            await self.sdk.cancel(session, "wait_until_cancelled")
        await self.call(session, "was_cancelled", key=key)

    async def step_interrupted(self, session: Any, callbacks: Callbacks) -> None:
        """The server closes a call's stream; the client resumes it by `Last-Event-ID` and misses nothing."""
        await self.call(session, "interrupted")
        self.log.add("heard", [text for text in callbacks.told if "gap" in text])

    async def step_idle(self, session: Any, callbacks: Callbacks, seconds: float) -> None:
        """The call's stream and the GET stream stay silent for a while, then both deliver."""
        with anyio.fail_after(seconds + PATIENCE):
            result = await session.call_tool("silent", {"seconds": seconds})
        self.log.add("silent", result)
        await self.call(session, "announce", text="after the silence")
        await callbacks.heard("after the silence")
        self.log.add("heard", "after the silence")

    async def step_resume(self) -> None:
        """A client disappears in the middle of a call; another one takes the session up after the last event it saw."""
        key, tokens = self.key(), []
        call = self.sdk.tool_request("tell", {"key": key, "parts": 3})

        async def on_token(token: str) -> None:
            tokens.append(token)
            lost.note(f"event {len(tokens)}")

        lost, found = Callbacks(), Callbacks()
        async with self.sdk.connect(self.endpoint, lost, keep=True) as (session, seen):
            hello = await session.initialize()
            headers = {"mcp-session-id": seen.session, "mcp-protocol-version": self.sdk.version(hello)}
            async with anyio.create_task_group() as tasks:
                metadata = ClientMessageMetadata(on_resumption_token_update=on_token)
                tasks.start_soon(partial(session.send_request, call, types.CallToolResult, metadata=metadata))
                await lost.heard("part 1")
                await lost.heard("event 2")  # the first one opens the stream, the second carried part 1
                tasks.cancel_scope.cancel()
        async with self.sdk.connect(self.endpoint, found, headers=headers) as (session, seen):
            for number in range(3):
                arguments = {"name": "go_on", "arguments": {"key": key}}
                message = {"jsonrpc": "2.0", "id": 100 + number, "method": "tools/call", "params": arguments}
                answer = await seen.http.post(self.endpoint, json=message, headers=ACCEPT)
                answer.raise_for_status()
            metadata = ClientMessageMetadata(resumption_token=tokens[1])
            with anyio.fail_after(PATIENCE):
                result = await session.send_request(call, types.CallToolResult, metadata=metadata)
        self.log.add("resumed", {"before": parts(lost), "after": parts(found), "result": result})

    async def step_gone(self, seen: Any, session_id: str) -> None:
        """After DELETE the session is unknown, and the server saw what it should."""
        headers = {"mcp-session-id": session_id, **ACCEPT}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        answer = await seen.http.post(self.endpoint, json=message, headers=headers)
        self.log.add("a request after DELETE", shape(answer))
        facts = (await seen.http.get(f"{self.base}/facts")).json()
        mine = [fact for fact in facts if fact["session"] == session_id]
        counted = Counter(
            f"{fact['method']} {fact['status']}" + (" resuming" if "last-event-id" in fact["headers"] else "")
            for fact in mine
        )
        self.log.add("requests that the server saw", dict(counted))

    async def sessions(self, idle: float) -> None:
        """The whole script for a server with sessions."""
        callbacks = Callbacks()
        async with self.sdk.connect(self.endpoint, callbacks) as (session, seen):
            self.log.add("initialize", await session.initialize())
            self.log.hide(seen.session, "SESSION")
            session_id = seen.session
            await self.step_tools(session)
            await self.step_progress(session)
            await self.step_requests(session, callbacks)
            await self.step_cancel(session)
            await self.step_interrupted(session, callbacks)
            await self.step_idle(session, callbacks, idle)
        async with self.sdk.plain_http() as seen:
            await self.step_gone(seen, session_id)
        await self.step_resume()

    async def stateless(self) -> None:
        """The script for a server without sessions that answers in JSON."""
        callbacks = Callbacks()
        async with self.sdk.connect(self.endpoint, callbacks) as (session, seen):
            self.log.add("initialize", await session.initialize())
            self.log.add("session", seen.session)
            await self.step_tools(session)

    async def older(self) -> None:
        """The script for the HTTP+SSE transport of 2024."""
        callbacks = Callbacks()
        async with self.sdk.connect(self.endpoint, callbacks, sse=True) as (session, _):
            self.log.add("initialize", await session.initialize())
            await self.step_tools(session)
            await self.step_progress(session)
            await self.call(session, "ask_model", prompt="the capital of France")
            await self.call(session, "ask_person", question="Who are you?")
            self.log.add("asked", callbacks.asked)

    async def authorised(self) -> None:
        """The script for a server with OAuth: refused, then discovery, registration, a code, a token, a call."""
        async with self.sdk.plain_http() as seen:
            for name, answer in (await unauthorised_answers(seen.http, self.endpoint, self.base)).items():
                self.log.add(name, shape(answer))
        callbacks = Callbacks()
        auth = self.sdk.authorisation(self.endpoint)
        async with self.sdk.connect(self.endpoint, callbacks, auth=auth) as (session, seen):
            self.log.add("initialize", await session.initialize())
            self.log.hide(auth.context.client_info.client_id, "CLIENT")
            await self.call(session, "add", a=20, b=3)
            await self.call(session, "who_calls")
        self.log.add("authorization endpoint", str(auth.context.oauth_metadata.authorization_endpoint))
        self.log.add("token scope", auth.context.current_tokens.scope)
