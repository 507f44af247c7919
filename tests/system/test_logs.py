"""The access log of a relay: a line for each request, from a real relay whose standard error is read."""

from __future__ import annotations

import array
import asyncio
import fcntl
import json
import os
import shlex
import termios
from pathlib import Path
from typing import Any

import pytest

from tests.support.child import eventually
from tests.support.local import LocalService
from tests.support.processes import DOMAIN, AgentProcess, RelayProcess
from tests.support.rawhttp import RawClient

pytestmark = pytest.mark.asyncio(loop_scope="function")


def lines(relay: RelayProcess) -> list[dict[str, Any]]:
    """Those of the access log."""
    found = [json.loads(line) for line in relay.stderr.splitlines()]
    return [line for line in found if line["logger"] == "relay.access"]


async def ask(relay: RelayProcess, target: str, fields: str = "", name: str = "t") -> None:
    client = await RawClient.connect(relay.public_port)
    client.send(f"GET {target} HTTP/1.1\r\nHost: {name}.{DOMAIN}\r\n{fields}Connection: close\r\n\r\n".encode())
    await client.response()
    client.close()


async def test_a_line_for_each_request() -> None:
    """Who answered, how much, for whom, by which trace; also of a stream that its reader or its agent leaves."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    env = {"RELAY_ACCESS_LOG": "on", "RELAY_LOG_FORMAT": "json"}
    async with LocalService() as local, RelayProcess(env=env) as relay:
        async with AgentProcess(local.port, relay_port=relay.agents_port, key_file=relay.key_file) as agent:
            await agent.established()
            await ask(relay, "/bytes/1000?framing=chunked", f"traceparent: {trace}\r\nMcp-Method: tools/call\r\n")
            await ask(relay, "/", name="nobody")
            reader = await RawClient.connect(relay.public_port)
            reader.send(f"GET /sse?count=1000&every=0.05 HTTP/1.1\r\nHost: t.{DOMAIN}\r\n\r\n".encode())
            await reader.head()
            reader.close()
            await eventually(lambda: len(lines(relay)) == 3, 5.0)
            held = await RawClient.connect(relay.public_port)
            held.send(f"GET /sse?count=1000&every=0.05 HTTP/1.1\r\nHost: t.{DOMAIN}\r\n\r\n".encode())
            await held.head()
            (key_id,) = {one["key_id"] for one in (await relay.api.do("GET", "/tunnels"))["items"]}
            await agent.kill()
        await held.rest()
        held.close()
        await relay.stop()
        first, second, third, fourth = lines(relay)
    told = {"tunnel": "t", "key_id": key_id, "status": 200, "answered_by": "local", "ended": "complete"}
    told |= {"method": "GET", "path": "/bytes/1000", "bytes_in": 0, "bytes_out": 1000, "mcp_method": "tools/call"}
    told |= {"trace_id": trace[3:35], "client": "127.0.0.1", "host": f"t.{DOMAIN}"}
    assert {name: first.get(name) for name in told} == told
    assert "query" not in first
    assert 0 < first["time_to_first_byte"] <= first["duration"]
    assert (second["status"], second["answered_by"], second["error"]) == (404, "relay", "unknown_host")
    assert (third["status"], third["ended"]) == (200, "visitor_left")
    assert (fourth["status"], fourth["ended"]) == (200, "broken_off")
    assert len({line["request_id"] for line in (first, second, third, fourth)}) == 4


async def test_a_log_that_nobody_reads_halts_nobody(tmp_path: Path) -> None:
    """Standard error is a pipe that is full: requests are answered as before, and the relay still stops."""
    os.mkfifo(fifo := tmp_path / "log")
    nobody = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    relay = RelayProcess(env={"RELAY_ACCESS_LOG": "on"})
    relay.argv = ("sh", "-c", f'exec "$@" 2>{shlex.quote(str(fifo))}', "sh", *relay.argv)
    async with LocalService() as local, relay:
        async with AgentProcess(local.port, relay_port=relay.agents_port, key_file=relay.key_file) as agent:
            await agent.established()
            client = await RawClient.connect(relay.public_port)
            for _ in range(800):
                client.send(f"GET /{'x' * 900} HTTP/1.1\r\nHost: t.{DOMAIN}\r\n\r\n".encode())
                assert (await client.response()).status == 200
            client.close()
        assert array.array("i", fcntl.ioctl(nobody, termios.FIONREAD, bytes(4)))[0] >= 60_000  # the pipe is full
        async with asyncio.timeout(10.0):
            assert await relay.stop() == 0
    os.close(nobody)
