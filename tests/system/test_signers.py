"""A copy of a node's signing key is worth nothing once that key was retired: on no node, from the command on.

The thief forges a child key that bears the id of one that exists, and visitor keys; two relays share the registry.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from relay.wire.access import AccessRules
from relay.wire.hello import Hello, Refused, Welcome
from tests.support.keys import Api
from tests.support.local import LocalService
from tests.support.processes import DOMAIN, AgentProcess, RelayProcess
from tests.support.rawhttp import RawClient, exchange
from tests.system.docpages import call
from tests.system.forger import another_id, checked, child, parts_of, signing_secret, token
from tests.system.handagent import HandAgent
from tests.system.test_revocation import Streamer

WITHIN = 2.0
"""Seconds from the answer to the command to the end of what it ends, on every node."""


@dataclass(frozen=True, slots=True)
class Thief:
    """Whoever has a copy of `signing.key`, and a child key and a visitor key to copy what stands in them."""

    secret: bytes
    child: str
    visitor: str

    def forged_child(self) -> str:
        """Another text than the real key, with its id."""
        header, claims = parts_of(self.child)
        return child(header, {**claims, "exp": claims["exp"] + 60}, self.secret)

    def forged_visitor(self) -> str:
        """With an id that nobody knows."""
        header, claims = parts_of(self.visitor)
        forged = token(header, {**claims, "jti": another_id("visitor")}, self.secret)
        return checked(f"mtk_visitor_{forged}")


def request(name: str, key: str) -> bytes:
    """Of a visitor with this key."""
    head = f"GET / HTTP/1.1\r\nHost: {name}.{DOMAIN}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    return head.encode()


@contextlib.asynccontextmanager
async def reading(port: int, key: str) -> AsyncIterator[RawClient]:
    """A visitor of the private tunnel `kept`, who reads what never ends."""
    async with await RawClient.connect(port) as visitor:
        visitor.send(request("kept", key))
        await visitor.until(b"1\r\n.\r\n")
        yield visitor


async def refused(port: int, key: str) -> Refused:
    """What the relay says to an agent with this key."""
    async with HandAgent(port, Hello("again", 0, 9, key, ("stolen",))) as agent:
        assert isinstance(agent.answer, Refused)
        return agent.answer


async def retire(relay: RelayProcess, kid: str) -> str:
    """By the command, on the relay's machine."""
    where = {"RELAY_URL": f"ws://127.0.0.1:{relay.agents_port}", "RELAY_DATA": str(relay.data)}
    code, said = await asyncio.to_thread(call, ["signers", "retire", kid, "--yes"], where, b"")
    assert code == 0, said
    return said


@pytest.mark.timeout(60)
async def test_a_stolen_signing_key_is_retired(tmp_path: Path) -> None:
    """What forged keys opened and were let in to is cut within two seconds, on the node whose key it was and on the
    other, and they are refused; an agent with a master key is back by itself, by a key that counts. Who has a key of
    the other node is not disturbed.
    """
    async with contextlib.AsyncExitStack() as stack:
        local = await stack.enter_async_context(LocalService())
        one = await stack.enter_async_context(RelayProcess(tmp_path / "one"))
        shared = {"RELAY_DATABASE_URL": f"sqlite:///{one.data}/relay.db"}
        two = await stack.enter_async_context(RelayProcess(tmp_path / "two", env=shared))
        (key_file := tmp_path / "master.key").touch(mode=0o600)
        master = await one.api.create_project("one")
        key_file.write_text(master.key)
        agent = AgentProcess(local.port, relay_port=one.agents_port, key_file=key_file, args=["--private"])
        await stack.enter_async_context(agent)
        await agent.established()
        private = Hello("kept", 0, 1, two.key_file.read_text().strip(), ("kept",), access={"kept": AccessRules(True)})
        keeper = await stack.enter_async_context(Streamer(two.agents_port, private))
        thief = Thief(signing_secret(one.data), await master.mint(), await one.api.mint("visitor", tunnel="kept"))
        kid = str(parts_of(thief.child)[0]["kid"])
        forged = thief.forged_child()
        takers = [
            await stack.enter_async_context(HandAgent(relay.agents_port, Hello(name, 0, 1, forged, (name,))))
            for name, relay in (("stolen-here", one), ("stolen-there", two))
        ]
        assert all(isinstance(each.answer, Welcome) for each in (keeper, *takers))
        visitor = await stack.enter_async_context(reading(two.public_port, thief.forged_visitor()))

        mark = len(agent.events)
        assert await retire(one, kid) == f"Retired: {kid}\n"
        acknowledged = time.monotonic()
        async with asyncio.timeout(10):
            rest, _ = await visitor.rest()
            await asyncio.gather(*(taker.ended.wait() for taker in takers))
        assert time.monotonic() - acknowledged < WITHIN
        assert not rest.endswith(b"0\r\n\r\n")
        assert not keeper.ended.is_set()
        for relay in (one, two):
            answer = await refused(relay.agents_port, forged)
            assert (answer.code, answer.retry_after, "retired" in answer.message) == ("expired", None, True)
            assert (await Api(relay.agents_port, forged).ask("GET", "/whoami"))[0] == 401
        for key in (thief.forged_visitor(), thief.visitor):
            assert (await exchange(two.public_port, request("kept", key))).status == 401

        await agent.wait_event("connected", 10, mark)
        assert len([event for event in agent.events if event["event"] == "minted"]) == 2
        fresh = await master.mint("visitor", tunnel="t")
        assert (await exchange(one.public_port, request("t", fresh), timeout=15)).status == 200
        assert signing_secret(one.data) != thief.secret
