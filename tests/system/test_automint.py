"""An agent with a master key mints its own child key: once, anew on the live session before it ends, never a flood."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.support.keys import Api, make_private, text_of
from tests.support.local import LocalService
from tests.support.processes import DOMAIN, AgentProcess, RelayProcess
from tests.support.rawhttp import RawClient, exchange


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "some.key"
    path.touch(mode=0o600)
    path.write_text(text)
    return path


async def actions(api: Api, action: str) -> list[str]:
    """What the audit says was done so, oldest first."""
    rows = (await api.do("GET", "/audit?limit=500"))["items"]
    return [item["row"]["subject"] for item in rows if item["row"]["action"] == action]


async def keys_of(agent: AgentProcess) -> list[str]:
    """Keys that the agent says it minted."""
    return [str(event["key"]) for event in agent.events if event["event"] == "minted"]


def an_agent(relay: RelayProcess, local: LocalService, key_file: Path) -> AgentProcess:
    return AgentProcess(local.port, relay_port=relay.agents_port, key_file=key_file, args=["--links", "3"])


async def test_one_key_for_all_links_and_none_for_a_restart(tmp_path: Path) -> None:
    """A relay that comes back sees the keys that it knows; the key may open what the agent asked for and no more."""
    async with LocalService() as local, contextlib.AsyncExitStack() as stack:
        relay = await stack.enter_async_context(RelayProcess(tmp_path / "data"))
        master = await relay.api.create_project("one")
        async with an_agent(relay, local, written(tmp_path, master.key)) as agent:
            await agent.established()
            [minted] = await keys_of(agent)
            key = await relay.api.do("GET", f"/keys/{minted}")
            assert (key["parent"], key["kind"], key["scope"]["names"]) == (master.id, "child", ["t"])
            for _ in range(2):
                await relay.stop()
                mark = len(agent.events)
                relay = await stack.enter_async_context(RelayProcess(tmp_path / "data", ports=relay.ports))
                await agent.wait_event("connected", 15, mark)
            assert (await actions(relay.api, "key.mint")).count(minted) == 1
            assert await keys_of(agent) == [minted]


@pytest.mark.timeout(60)
async def test_a_key_is_replaced_on_the_live_session(tmp_path: Path) -> None:
    """At two thirds of its life, without a reconnect; a stream that runs meanwhile is not disturbed."""
    async with LocalService() as local, RelayProcess() as relay:
        await relay.api.create_project("one")
        private, public = make_private()
        wish = {"kind": "master", "project": "one", "public_key": public, "life": 9}
        master = await relay.api.do("POST", "/keys", wish)
        key_file = written(tmp_path, text_of(master["key"]["id"], private))
        async with an_agent(relay, local, key_file) as agent:
            await agent.established()
            async with await RawClient.connect(relay.public_port) as visitor:
                visitor.send(f"GET /sse?count=999&every=0.1 HTTP/1.1\r\nHost: t.{DOMAIN}\r\n\r\n".encode())
                await visitor.stream.until(b"data:")
                renewed = await agent.wait_event("renewed", 15)
                events = [event["event"] for event in agent.events]
                assert events.count("minted") == 2
                assert "disconnected" not in events
                assert renewed["expires_at"]
                so_far = visitor.stream.unread().count(b"data:")
                for _ in range(so_far + 2):  # and what comes after it
                    await visitor.stream.until(b"data:")


async def test_a_revoked_agent_says_by_whom_and_ends(tmp_path: Path) -> None:
    """With its own exit code, at once; it mints no other key, although it could."""
    async with LocalService() as local, RelayProcess() as relay:
        master = await relay.api.create_project("one")
        async with an_agent(relay, local, written(tmp_path, master.key)) as agent:
            await agent.established()
            [minted] = await keys_of(agent)
            await master.do("POST", f"/keys/{minted}/revoke", {})
            assert await agent.wait() == 6
            said = [event for event in agent.events if event["event"] == "revoked"]
            assert len(said) == 1
            assert master.id in said[0]["message"]
            assert minted in said[0]["message"]
        assert len(await actions(relay.api, "key.mint")) == 4  # operator, the fixture's child, master, child
        visit = f"GET / HTTP/1.1\r\nHost: t.{DOMAIN}\r\nConnection: close\r\n\r\n".encode()
        assert (await exchange(relay.public_port, visit)).status == 503


async def test_a_closed_tunnel_ends_its_agent(tmp_path: Path) -> None:
    """The operator closes it: the agent is told and does not come back by itself."""
    async with LocalService() as local, RelayProcess() as relay:
        async with an_agent(relay, local, relay.key_file) as agent:
            await agent.established()
            await relay.api.do("DELETE", "/tunnels/t")
            assert await agent.wait() == 7
        assert (await relay.api.do("GET", "/tunnels"))["items"] == []
