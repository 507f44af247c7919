"""From nothing to the first visitor: the profile demo, as somebody tries it who has just cloned this."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from pathlib import Path

import aiohttp
import pytest

from tests.compose.conftest import Told
from tests.compose.engine import EngineError, Stack
from tests.compose.outside import Outside, mcp_session

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]
FIRST_VISITOR_WITHIN = 60.0


async def first_answer(stack: Stack, folder: Path) -> tuple[Outside, float]:
    """Brings the demo up and asks it until it answers: what is before it, and how many seconds that took."""
    began = time.monotonic()
    starting = asyncio.create_task(asyncio.to_thread(stack.up, wait=False))
    outside: Outside | None = None
    while time.monotonic() - began < FIRST_VISITOR_WITHIN:
        with contextlib.suppress(EngineError, aiohttp.ClientError, OSError, TimeoutError):
            if outside is None:
                outside = Outside(stack, await asyncio.to_thread(stack.authority, folder), folder)
            if await outside.visit("echo", "/mcp", 5) in {400, 406}:  # the MCP server's own: a GET says no session
                await starting
                return outside, time.monotonic() - began
        await asyncio.sleep(0.05)
    await starting
    raise AssertionError(f"no visitor was answered within {FIRST_VISITOR_WITHIN} s")


async def test_the_demo_answers(tmp_path: Path, told: Told) -> None:
    """An MCP client calls its tools; each container restarts and it answers again; all are healthy and bounded."""
    with Stack(profiles=["demo"]) as stack:
        outside, took = await first_answer(stack, tmp_path)
        told(f"docker compose --profile demo up until the first visitor was answered: {took:.1f} s")
        said = await asyncio.to_thread(mcp_session, outside.url("echo", "/mcp"), outside.authority)
        assert [one.get("answer") for one in said if one["event"] == "called"] == ["42", "counted to 5"]
        for service in ("demo-server", "demo-agent"):
            await asyncio.to_thread(stack, "restart", service)
            began = time.monotonic()
            while True:
                with contextlib.suppress(aiohttp.ClientError, ssl.SSLError, TimeoutError):
                    if await outside.visit("echo", "/mcp", 10) in {400, 406}:
                        break
                assert time.monotonic() - began < 30
            told(f"restart of {service}: answered again {time.monotonic() - began:.1f} s later")
        await asyncio.to_thread(stack.up)  # waits until all are healthy
        hardened(stack)


def hardened(stack: Stack) -> None:
    """No container has a capability that it needs not, a root that it can write to, or no bound."""
    for service in ("relay", "caddy", "demo-server", "demo-agent"):
        found = stack.container(service)
        host = found["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert [one.removeprefix("CAP_") for one in host["CapAdd"] or ()] == (
            ["NET_BIND_SERVICE"] if service == "caddy" else []
        )
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert host["Memory"] > 0, service
        assert host["PidsLimit"] > 0, service
        assert host["RestartPolicy"]["Name"] == "unless-stopped", service
        assert host["LogConfig"]["Config"] == {"max-file": "5", "max-size": "10m"}, service
        assert found["State"]["Health"]["Status"] == "healthy", service
        if service != "caddy":
            assert found["Config"]["User"] == "65532:65532", service
        bound = {one["HostIp"] for ports in (host["PortBindings"] or {}).values() for one in ports}
        assert bound == ({"127.0.0.1"} if service == "relay" else {""} if service == "caddy" else set()), service
