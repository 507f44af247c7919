"""`relay start` through the front door: visitors do not notice that the file changes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.child import Child
from tests.support.local import LocalService
from tests.support.processes import DOMAIN, RELAY, RelayProcess
from tests.support.rawhttp import RawClient


class StartedAgent(Child):
    """`relay start` of a file."""

    def __init__(self, file: Path) -> None:
        super().__init__([*RELAY, "start", "--file", str(file), "--json", "--quiet"], name="agent")

    async def reloaded(self, after: int, event: str = "reloaded") -> dict[str, object]:
        """What became of the next change."""
        return await self.wait_event(event, 10, after)


class Steady:
    """A visitor who calls again and again on one connection, until `stop`; every answer must be a good one."""

    def __init__(self, port: int, name: str) -> None:
        self._port, self._host, self._going = port, f"{name}.{DOMAIN}".encode(), True
        self.count = 0

    async def run(self) -> None:
        async with await RawClient.connect(self._port) as client:
            while self._going:
                client.send(b"POST /echo HTTP/1.1\r\nHost: %s\r\nContent-Length: 2\r\n\r\nhi" % self._host)
                response = await client.response(b"POST")
                assert response.status == 200, response
                self.count += 1

    def stop(self) -> None:
        self._going = False


def write(file: Path, relay: RelayProcess, **tunnels: object) -> None:
    """As an editor does: a new file in the old one's place."""
    told = {"relay": f"ws://127.0.0.1:{relay.agents_port}", "key_file": str(relay.key_file), "tunnels": tunnels}
    aside = file.with_suffix(".new")
    aside.write_text(json.dumps(told))  # YAML is a superset of JSON
    os.replace(aside, file)


@pytest.mark.timeout(60)
async def test_not_one_request_is_dropped(tmp_path: Path) -> None:
    """Tunnels come, go and lead elsewhere under a stream of requests and an open event stream of one that stays; a
    broken file changes nothing and is told with its line; at SIGHUP the file is read at once.
    """
    file = tmp_path / "relay.yaml"
    async with RelayProcess() as relay, LocalService() as local, LocalService() as other:
        write(file, relay, stays=local.port, goes=local.port)
        async with StartedAgent(file) as agent:
            await agent.wait_event("established", 15)
            steady = Steady(relay.public_port, "stays")
            async with await RawClient.connect(relay.public_port, timeout=20) as events, asyncio.TaskGroup() as group:
                group.create_task(steady.run())
                target = b"/sse?count=10000&every=0.01"
                events.send(b"GET %s HTTP/1.1\r\nHost: stays.%s\r\n\r\n" % (target, DOMAIN.encode()))
                await events.until(b"id: 0\n")

                at = len(agent.events)
                write(file, relay, stays=local.port, comes={"target": other.port, "rate": 100})
                assert await agent.reloaded(at) == {
                    "event": "reloaded", "added": ["comes"], "removed": ["goes"], "changed": [],
                }  # fmt: skip
                assert await status(relay, "comes") == 200

                at = len(agent.events)
                file.write_text(file.read_text().replace('"rate": 100', '\n"rate": -1'))
                told = await agent.reloaded(at, "reload_failed")
                assert f"{file}:2: tunnels.comes.rate must be a number of requests" in str(told["message"])

                at = len(agent.events)
                write(file, relay, stays=other.port, comes=other.port)
                agent.signal(signal.SIGHUP)
                assert (await agent.reloaded(at))["changed"] == ["stays", "comes"]
                assert await status(relay, "comes") == 200
                await event_after(time.monotonic(), events)
                assert steady.count > 50
                steady.stop()
            assert not [event for event in agent.events if event["event"] in ("disconnected", "error", "refused")]
            agent.signal(signal.SIGTERM)
            assert await agent.wait() == 0


async def event_after(moment: float, events: RawClient) -> None:
    """Until an event comes that was sent later than this, by this process's clock."""
    while True:
        told = await events.until(b"\n\n")
        if json.loads(told.partition(b"data: ")[2].partition(b"\n")[0])["at"] > moment:
            return


async def status(relay: RelayProcess, name: str) -> int:
    async with await RawClient.connect(relay.public_port) as client:
        client.send(f"GET /status/200 HTTP/1.1\r\nHost: {name}.{DOMAIN}\r\n\r\n".encode())
        return (await client.response()).status
