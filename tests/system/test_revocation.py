"""A revoked tree of keys has no live session left within a second, on this node and soon on every other.

Sessions are agents made by hand that stream to visitors for ever, so that the last byte of each can be timed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from relay.exchange.heads import ResponseHead, encode_response
from relay.wire import frames
from relay.wire.errors import AwayCode
from relay.wire.hello import Hello, Refused, Welcome
from tests.support.databases import Postgres, postgres, postgres_template, sqlite_template
from tests.support.keys import Api
from tests.support.longer import CHAOS
from tests.support.processes import DOMAIN, RelayProcess
from tests.support.rawhttp import exchange
from tests.system.handagent import HandAgent

__all__ = ["postgres", "postgres_template", "sqlite_template"]

SESSIONS, KEYS = (500, 10_000) if CHAOS else (25, 200)
EVERY = 0.2


class Streamer(HandAgent):
    """Answers every request with a body that never ends: a byte now and then."""

    dripping: asyncio.Task[None] | None = None

    async def _take(self, kind: int, stream: int, payload: bytes) -> None:
        if kind != frames.OPEN_END:
            await super()._take(kind, stream, payload)
            return
        await self._send(frames.HEAD, stream, encode_response(ResponseHead(200, b"OK", [])))
        self.dripping = asyncio.create_task(self._drip(stream))

    async def _drip(self, stream: int) -> None:
        while not self.ended.is_set():
            await self._send(frames.DATA, stream, b".")
            await asyncio.sleep(EVERY)

    async def __aexit__(self, *exc: object) -> None:
        self.ended.set()
        if self.dripping is not None:
            await self.dripping
        await super().__aexit__(*exc)


@dataclass
class Caller:
    """A visitor that reads a stream to its bitter end."""

    name: str
    first: asyncio.Event = field(default_factory=asyncio.Event)
    last_byte: float = 0.0
    """By the steady clock."""
    aborted: bool = False

    async def read(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET / HTTP/1.1\r\nHost: {self.name}.{DOMAIN}\r\n\r\n".encode())
        raw = b""
        try:
            while data := await reader.read(65536):
                self.last_byte = time.monotonic()
                raw = (raw + data)[-64:]
                if b"\r\n1\r\n.\r\n" in raw:
                    self.first.set()
        except ConnectionResetError:
            self.aborted = True
        finally:
            writer.close()
        self.aborted = self.aborted or not raw.endswith(b"0\r\n\r\n")


@contextlib.asynccontextmanager
async def streams(relay: RelayProcess, master: Api, amount: int) -> AsyncIterator[tuple[list[Streamer], list[Caller]]]:
    """Live sessions, each with a key of its own, and one visitor each that has received something."""
    async with contextlib.AsyncExitStack() as stack:
        agents, callers, reading = [], [], []
        for number in range(amount):
            key = await master.mint(scope={"names": [f"s{number}"]})
            agent = Streamer(relay.agents_port, Hello(f"i{number}", 0, 1, key, (f"s{number}",)))
            agents.append(await stack.enter_async_context(agent))
            assert isinstance(agent.answer, Welcome), agent.answer
            callers.append(Caller(f"s{number}"))
            reading.append(asyncio.create_task(callers[-1].read(relay.public_port)))
        async with asyncio.timeout(30):
            await asyncio.gather(*(caller.first.wait() for caller in callers))
        yield agents, callers
        async with asyncio.timeout(10):
            await asyncio.gather(*reading)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The environment of a relay on either database."""
    if request.param == "sqlite":
        yield {}
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database(request.getfixturevalue("postgres_template")) as url:
        yield {"RELAY_DATABASE_URL": url}


async def happened(relay: RelayProcess) -> list[tuple[str, str]]:
    """Actions of the audit, with what they were done to."""
    rows = (await relay.api.do("GET", "/audit?limit=500"))["items"]
    return [(item["row"]["action"], item["row"]["subject"]) for item in rows]


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_a_revoked_tree_is_silent_within_a_second(database: dict[str, str]) -> None:
    """Counted from the answer to the command; each visitor sees an abort, the next one the contract's answer."""
    async with RelayProcess(env=database) as relay:
        master = await relay.api.create_project("one")
        bystander = await relay.api.create_project("two")
        async with (
            streams(relay, master, SESSIONS) as (agents, callers),
            Streamer(relay.agents_port, Hello("by", 0, 1, await bystander.mint(), ("bystander",))) as other,
        ):
            for _ in range(KEYS - SESSIONS):
                await master.mint()
            began = time.monotonic()
            counts = await relay.api.do("POST", f"/keys/{master.id}/revoke", {"cascade": True})
            acknowledged = time.monotonic()
            async with asyncio.timeout(10):
                await asyncio.gather(*(agent.ended.wait() for agent in agents))
            assert (counts["master"], counts["child"]) == (1, KEYS)
            assert acknowledged - began < 5
            assert all(agent.away == [AwayCode.REVOKED] for agent in agents)
            asked = time.monotonic()
            answer = await exchange(
                relay.public_port, f"GET / HTTP/1.1\r\nHost: s0.{DOMAIN}\r\nConnection: close\r\n\r\n".encode()
            )
            assert (answer.status, b"Relay-Error: agent_offline" in answer.raw) == (503, True)
            assert time.monotonic() - asked < 1  # nobody waits for an agent that will not come back
            assert not other.ended.is_set()
        assert all(caller.aborted for caller in callers)
        late = max(caller.last_byte for caller in callers) - acknowledged
        print(f"{SESSIONS} sessions, {KEYS} keys: command {acknowledged - began:.2f} s, last byte {late:+.3f} s after")  # noqa: T201
        assert late <= 1


@pytest.mark.parametrize("path", ["/keys/{id}/revoke", "/subdomains/s0"])
async def test_an_agent_that_said_goodbye_is_cut_all_the_same(path: str) -> None:
    """What it goes on sending after GOING_AWAY is bound to its key and its name as before."""
    async with RelayProcess() as relay:
        master = await relay.api.create_project("one")
        async with streams(relay, master, 1) as ((agent,), (caller,)):
            await agent._connection.send(frames.encode_going_away(AwayCode.SHUTDOWN, 1))
            async with asyncio.timeout(5):
                while (await relay.api.do("GET", "/tunnels"))["items"]:
                    await asyncio.sleep(0.05)
            if path.startswith("/keys"):
                await relay.api.do("POST", path.format(id=master.id), {"cascade": True})
            else:
                await master.do("DELETE", path)
            acknowledged = time.monotonic()
            async with asyncio.timeout(10):
                await agent.ended.wait()
        assert caller.aborted
        assert caller.last_byte - acknowledged <= 1


@pytest.mark.timeout(120)
async def test_a_revocation_on_one_node_cuts_on_the_other(postgres: Postgres, postgres_template: str) -> None:
    """Within two seconds; the key is refused there from then on, by whom and when it was revoked said."""
    with postgres.database(postgres_template) as url:
        env = {"RELAY_DATABASE_URL": url}
        async with RelayProcess(env=env) as one, RelayProcess(env=env) as two:
            master = await one.api.create_project("one")
            async with streams(two, Api(one.agents_port, master.key), 3) as (agents, callers):
                key = agents[0]._hello.key
                await one.api.do("POST", f"/keys/{master.id}/revoke", {"cascade": True})
                acknowledged = time.monotonic()
                async with asyncio.timeout(10):
                    await asyncio.gather(*(agent.ended.wait() for agent in agents))
            assert max(caller.last_byte for caller in callers) - acknowledged <= 2
            async with HandAgent(two.agents_port, Hello("again", 0, 1, key, ("s0",))) as again:
                assert isinstance(again.answer, Refused)
                assert (again.answer.code, again.answer.retry_after) == ("revoked", None)
                assert one.api.id in again.answer.message


@pytest.mark.timeout(120)
async def test_without_its_database_a_relay_serves_and_admits_nobody(
    postgres: Postgres, postgres_template: str, tmp_path: Path
) -> None:
    """Live sessions go on; a new one is told to come back, and may as soon as the database is there again."""
    with postgres.database(postgres_template) as url:
        async with RelayProcess(env={"RELAY_DATABASE_URL": url}) as relay:
            key = await relay.api.mint()
            async with HandAgent(relay.agents_port, Hello("live", 0, 1, key, ("live",)), label="here") as live:
                postgres.away(url)
                try:
                    await asyncio.sleep(5.5)  # what is tested is what happens after five seconds
                    async with HandAgent(relay.agents_port, Hello("new", 0, 1, key, ("new",))) as new:
                        assert isinstance(new.answer, Refused)
                        assert new.answer.code == "registry_unavailable"
                        assert new.answer.retry_after is not None
                    status, problem = await relay.api.ask("POST", "/keys", {"kind": "child"})
                    assert (status, problem["code"]) == (503, "unavailable")
                    visit = f"GET / HTTP/1.1\r\nHost: live.{DOMAIN}\r\nConnection: close\r\n\r\n".encode()
                    assert (await exchange(relay.public_port, visit)).body == b"here"
                    assert not live.ended.is_set()
                finally:
                    postgres.back(url)
                async with asyncio.timeout(20):
                    while True:
                        async with HandAgent(relay.agents_port, Hello("new", 0, 2, key, ("new",))) as new:
                            if isinstance(new.answer, Welcome):
                                break
                        await asyncio.sleep(0.1)
                    # What happened meanwhile is in the audit as well.
                    while ("tunnel.open", "new") not in await happened(relay):
                        await asyncio.sleep(0.1)
