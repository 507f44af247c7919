"""Limits through the front door: what each refuses and says, how exactly rates hold, and that no month is forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.local import LocalProcess
from tests.support.longer import CHAOS
from tests.support.messages import Response
from tests.support.processes import DOMAIN, AgentProcess, RelayProcess
from tests.support.rawhttp import RawClient, exchange
from tests.support.rawstream import EndOfBytes
from tests.support.reliability import Record
from tests.support.transfer import download, events, upload

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("limits")]

KIB = 1024
SECONDS = 10.0 if CHAOS else 3.0
RESTARTS = 10 if CHAOS else 2
PLANS = """
[plans.small]
tunnels = 2
requests = 5

[plans.light]
bytes = 100000
"""


@dataclass(frozen=True, slots=True)
class Ground:
    """What all tests of this room share: a relay that knows the plans, and a local service."""

    relay: RelayProcess
    local: LocalProcess
    names: Iterator[str]

    def write_key(self, text: str) -> Path:
        """A file with this key."""
        path = self.relay.data / f"{next(self.names)}.key"
        path.touch(mode=0o600)
        path.write_text(text)
        return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    """See `Ground`."""
    config = tmp_path_factory.mktemp("limits") / "relay.toml"
    config.write_text(PLANS)
    async with LocalProcess() as local, RelayProcess(args=["--config", str(config)]) as relay:
        yield Ground(relay, local, (f"t{number}" for number in itertools.count()))


@dataclass(frozen=True, slots=True)
class Limited:
    """A tunnel by a key that has limits."""

    ground: Ground
    name: str

    @property
    def port(self) -> int:
        """The relay's public one."""
        return self.ground.relay.public_port

    @property
    def host(self) -> str:
        """The tunnel's."""
        return f"{self.name}.{DOMAIN}"

    def request(self, target: str = "/status/200") -> bytes:
        """A GET."""
        return f"GET {target} HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode()

    async def get(self) -> Response:
        """Asks once, on a connection of its own."""
        return await exchange(self.port, self.request())


@contextlib.asynccontextmanager
async def limited(ground: Ground, args: Sequence[str] = (), **wanted: Any) -> AsyncIterator[Limited]:
    """An agent by a new child key; `wanted` is what is asked of it."""
    key_file = ground.write_key(await ground.relay.api.mint(**wanted))
    name = next(ground.names)
    port = ground.relay.agents_port
    async with AgentProcess(ground.local.port, relay_port=port, key_file=key_file, subdomain=name, args=args) as agent:
        await agent.established()
        yield Limited(ground, name)


def said(response: Response, name: str) -> bytes:
    """A field of a head that is there; empty: not."""
    assert response.head is not None
    return response.head.get(name) or b""


def refused(response: Response, code: str) -> int:
    """Checks that it is this refusal; how many seconds it says to wait."""
    assert (response.status, said(response, "relay-error")) == (429, code.encode()), response.body
    return int(said(response, "retry-after"))


async def hammer(there: Limited, seconds: float, client: RawClient) -> tuple[int, int]:
    """(answers of the local service, refusals) of as many requests as fit into so many seconds, one after another."""
    request = there.request()
    good = bad = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        client.send(request)
        status = (await client.response()).status
        assert status in (200, 429)
        good, bad = good + (status == 200), bad + (status == 429)
    return good, bad


async def test_requests_a_second(ground: Ground, record: Record) -> None:
    """What is let through is within 5 % of the rate, and refusals say how long to wait."""
    async with limited(ground, scope={"rate": 50}) as there, await RawClient.connect(there.port) as client:
        while True:  # uses up what may come at once
            good, bad = await hammer(there, 0.1, client)
            if bad:
                break
        good, bad = await hammer(there, SECONDS, client)
        share = good / (50 * SECONDS)
        record(
            name="limits: requests a second",
            asked="within 5 % over 10 s",
            seen=f"{share:.3f} of the rate",
            ok=0.95 <= share <= 1.05 and bad > 0,
            counts={"let_in": good, "refused": bad, "seconds": SECONDS},
        )
        refusal = await there.get()
        while refusal.status != 429:
            refusal = await there.get()
        assert refused(refusal, "rate_limited") == 1
        assert said(refusal, "ratelimit-policy") == b'"requests";q=50;w=1'
        assert said(refusal, "ratelimit").startswith(b'"requests";r=0;t=')


async def test_a_model_is_told_what_to_do(ground: Ground) -> None:
    """An MCP client gets a JSON-RPC error whose message says what the limit is and when to send the request again."""
    async with limited(ground, scope={"rate": 1}) as there:
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call"}).encode()
        head = f"POST /echo HTTP/1.1\r\nHost: {there.host}\r\nContent-Type: application/json\r\n"
        request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
        while (response := await exchange(there.port, request)).status == 200:
            pass
        wait = refused(response, "rate_limited")
        answer = json.loads(response.body)
        assert answer["id"] == 7
        assert answer["error"]["code"] == -31015
        assert "at most 1 request a second" in answer["error"]["message"]
        assert f"wait {wait} second" in answer["error"]["message"]
        await asyncio.sleep(wait)  # what the relay says is enough
        assert (await exchange(there.port, request)).status == 200


@pytest.mark.parametrize("way", ["down", "up"])
async def test_bandwidth(ground: Ground, way: str, record: Record) -> None:
    """What passes each way is within 5 % of the limit, evenly: no pause is longer than a quarter of a second."""
    rate = 1024 * KIB
    async with limited(ground, scope={"bandwidth": rate}) as there:
        port, host = there.port, there.host
        size = int(rate * SECONDS)
        if way == "down":
            done = await download(port, f"/bytes/{size}", host=host)
            meter = done.meter
            assert meter.intact
            assert meter.size == size
            seconds, samples = meter.seconds, meter.samples
        else:
            answer = (await upload(port, "/sink?hash=none", size, host=host)).answer
            assert answer["intact"]
            assert answer["bytes"] == size
            seconds, samples = answer["seconds"], answer["samples"]
        share = size / seconds / rate
        longest = max(later[0] - earlier[0] for earlier, later in itertools.pairwise(samples))
        record(
            name=f"limits: bandwidth {way}",
            asked="within 5 % over 10 s, smooth",
            seen=f"{share:.3f} of the rate, longest pause {longest * 1000:.0f} ms",
            ok=0.95 <= share <= 1.05 and longest < 0.25,
            counts={"bytes": size, "seconds": seconds, "longest_pause_s": longest},
        )


async def test_streams_of_a_tunnel_share_its_bandwidth(ground: Ground, record: Record) -> None:
    """Four downloads at once get a quarter each, within a tenth, although one began earlier."""
    async with limited(ground, scope={"bandwidth": 1024 * KIB}) as there:
        port, host = there.port, there.host
        done = await asyncio.gather(
            *(download(port, "/bytes/1000000000", host=host, seconds=SECONDS) for _ in range(4))
        )
        sizes = [one.meter.size for one in done]
        rates = [one.meter.rate_between(1.0, SECONDS) for one in done]  # one that came first had all for a moment
        spread = (max(rates) - min(rates)) / max(rates)
        record(
            name="limits: streams share a tunnel's bandwidth",
            asked="fairly",
            seen=f"spread {spread:.3f} of the largest of four",
            ok=spread < 0.1 and sum(sizes) <= 1024 * KIB * (SECONDS + 0.3),
            counts={f"bytes_{number}": size for number, size in enumerate(sizes)},
        )


async def test_a_large_body(ground: Ground) -> None:
    """One that says its length is refused at once; one that does not is cut when it has passed the limit."""
    async with limited(ground, scope={"body": 100_000}) as there:
        port, host = there.port, there.host
        for size in (100_001, None):
            told = await upload(port, "/sink?hash=none", size, host=host, seconds=2)
            assert told.head is not None
            assert (told.head.line.split()[1], told.head.get("relay-error")) == (b"413", b"body_too_large"), size
        whole = await upload(port, "/sink?hash=none", 100_000, host=host)
        assert whole.answer["bytes"] == 100_000


async def test_streams_open_at_once(ground: Ground) -> None:
    """Two event streams are the limit; one that ends makes room."""
    async with limited(ground, scope={"streams": 2}) as there, contextlib.AsyncExitStack() as stack:
        streams = []
        for _ in range(2):
            client = await stack.enter_async_context(await RawClient.connect(there.port))
            client.send(there.request("/sse?count=100000&every=0.05"))
            assert (await client.head()).line.split()[1] == b"200"
            streams.append(client)
        refused(await there.get(), "too_many_streams")
        streams[0].reset()
        async with asyncio.timeout(5):
            while (await there.get()).status != 200:
                pass


async def test_a_plan_of_a_project(ground: Ground) -> None:
    """It bounds tunnels and requests of all keys of the project together; what is left is told."""
    api = ground.relay.api
    await api.create_project("p", plan="small")
    async with limited(ground, project="p") as there:
        for _ in range(5):
            assert (await there.get()).status == 200
        wait = refused(await there.get(), "quota_exhausted")
        assert 0 < wait <= 31 * 86_400
        async with asyncio.timeout(10):  # what was counted is written every few seconds
            while not (projects := (await api.do("GET", "/usage?project=p"))["projects"]):
                await asyncio.sleep(0.1)
        (project,) = projects
        assert (project["requests"], project["limits"]["monthly_requests"], project["left"]["requests"]) == (5, 5, 0)
        # A second key of the same project: its two tunnels would make three.
        key_file = ground.write_key(await api.mint(project="p"))
        names = [f"{next(ground.names)}={ground.local.port}" for _ in range(2)]
        port = ground.relay.agents_port
        async with AgentProcess(None, relay_port=port, key_file=key_file, subdomain=names) as second:
            told = await second.wait_event("refused", 10)
            assert (told["code"], "at most 2 tunnels" in told["message"]) == ("too_many", True)


async def test_bytes_of_a_month_are_bounded_while_they_flow(ground: Ground) -> None:
    """A download beyond the month's bytes breaks off, and the next request is refused."""
    await ground.relay.api.create_project("q", plan="light")
    async with limited(ground, project="q") as there:
        async with await RawClient.connect(there.port) as client:
            with pytest.raises(EndOfBytes):
                async for _ in events(client, "/sse?count=1000000&every=0.01&pad=5000", there.host):
                    pass
        refused(await there.get(), "quota_exhausted")


async def test_a_loop_brake(ground: Ground) -> None:
    """What a developer asks for one tunnel holds for it, and for each address of its visitors."""
    async with limited(ground, ["--rate", "20", "--rate-per-address", "2"]) as there:
        statuses = [(await there.get()).status for _ in range(12)]
        assert statuses.count(429) >= 6
        assert 1 <= statuses.count(200) <= 5


async def test_no_request_of_a_month_is_forgotten(record: Record, tmp_path: Path) -> None:
    """After restarts by SIGTERM the month's counters are exactly what was sent."""
    each = 40
    async with contextlib.AsyncExitStack() as stack:
        local = await stack.enter_async_context(LocalProcess())
        relay = await stack.enter_async_context(RelayProcess(tmp_path / "data"))
        agent = AgentProcess(local.port, relay_port=relay.agents_port, key_file=relay.key_file)
        await stack.enter_async_context(agent)
        await agent.established()
        sent = 0
        for _ in range(RESTARTS):
            assert await ask(relay, each) == each
            sent += each
            assert await relay.stop() == 0
            relay = await stack.enter_async_context(RelayProcess(relay.data, ports=relay.ports))
        assert await ask(relay, each) == each
        sent += each
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):  # what was counted before the restart is read again within a second
                while (counted := await month(relay))[0] != sent:
                    await asyncio.sleep(0.1)
        record(
            name="limits: counters of a month",
            asked="equal the requests sent after restarts by SIGTERM",
            seen=f"{counted[0]} of {sent} after {RESTARTS}",
            ok=counted == (sent, sent * len(b"status")),
            counts={"sent": sent, "counted": counted[0], "restarts": RESTARTS},
        )


async def month(relay: RelayProcess) -> tuple[int, int]:
    """Requests and bytes to visitors of this month, of all projects."""
    projects = (await relay.api.do("GET", "/usage"))["projects"]
    return sum(one["requests"] for one in projects), sum(one["bytes_out"] for one in projects)


async def ask(relay: RelayProcess, count: int) -> int:
    """Asks so often on one connection; how many good answers."""
    good = 0
    async with await RawClient.connect(relay.public_port) as client:
        for _ in range(count):
            client.send(f"GET /status/200 HTTP/1.1\r\nHost: t.{DOMAIN}\r\n\r\n".encode())
            good += (await client.response()).status == 200
    return good
