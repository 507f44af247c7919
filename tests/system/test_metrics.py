"""A relay and an agent, measured from outside: what a scrape says after ordinary traffic, and what it never says."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.support.local import LocalService
from tests.support.metricspage import rows
from tests.support.processes import AgentProcess, RelayProcess
from tests.support.rawhttp import exchange
from tests.system.forger import id_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
HOST = b"t.tunnels.localhost"


@dataclass
class Place:
    relay: RelayProcess
    agent: AgentProcess
    agent_port: int


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place() -> AsyncIterator[Place]:
    async with LocalService() as local, RelayProcess(args=("--metrics-tunnels", "1")) as relay:
        given: dict[str, Any] = {"relay_port": relay.agents_port, "key_file": relay.key_file}
        async with AgentProcess(local.port, **given, args=("--metrics", "127.0.0.1:0", "--quiet")) as agent:
            await agent.established()
            address = (await agent.wait_event("metrics", 5))["address"]
            yield Place(relay, agent, int(address.rpartition(":")[2]))


async def get(port: int, path: str, host: bytes = b"x") -> tuple[int, str]:
    answer = await exchange(port, b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (path.encode(), host))
    return answer.status, answer.body.decode(errors="replace")


async def scraped(port: int) -> dict[str, float]:
    """Every sample, by its name with labels."""
    status, text = await get(port, "/metrics")
    assert status == 200
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[:1] != "#"}


async def told(port: int, wanted: dict[str, float]) -> dict[str, float]:
    """A scrape that says so; what has just ended may be counted a moment later."""
    async with asyncio.timeout(5):
        while True:
            found = await scraped(port)
            if {name: found.get(name) for name in wanted} == wanted:
                return found
            await asyncio.sleep(0.02)


async def test_a_scrape_after_ordinary_traffic(place: Place) -> None:
    """Everything that docs/metrics.md says always appears is there, and what happened is counted."""
    before = await scraped(place.relay.internal_port)
    for path in ("/", "/status/503", "/bytes/1000"):
        await get(place.relay.public_port, path, HOST)
    assert (await get(place.relay.public_port, "/", b"nobody.tunnels.localhost"))[0] == 404

    def more(name: str, by: float) -> dict[str, float]:
        return {name: before.get(name, 0) + by}

    wanted = {
        **more('relay_requests_total{class="2xx",error=""}', 2),
        **more('relay_requests_total{class="5xx",error=""}', 1),
        **more('relay_requests_total{class="4xx",error="unknown_host"}', 1),
        **more('relay_tunnel_requests_total{tunnel="t"}', 3),
        "relay_links_live": 2,
        "relay_tunnels_live": 1,
        "relay_ready": 1,
    }
    found = await told(place.relay.internal_port, wanted)
    assert found['relay_bytes_total{direction="out"}'] >= before['relay_bytes_total{direction="out"}'] + 1000
    assert found["relay_request_duration_seconds_count"] >= 4
    assert found['relay_registry_transaction_seconds_count{operation="read"}'] >= 1
    assert found['relay_registry_transaction_seconds_count{operation="write"}'] >= 1
    agents = await told(place.agent_port, {"relay_agent_links_live": 2, "relay_agent_ready": 1})
    assert agents['relay_agent_requests_total{class="2xx",error=""}'] >= 2
    assert agents["relay_agent_key_expires_seconds"] > 3600
    names = {re.split(r"[{ ]", name)[0] for name in (*found, *agents)}
    assert [row for row in rows() if row.appears == "always" and not names >= set(row.samples)] == []


async def test_lag_is_measured_all_the_time(place: Place) -> None:
    """Without a request, too."""
    before = (await scraped(place.relay.internal_port))["relay_loop_lag_seconds_count"]
    async with asyncio.timeout(5):
        while (await scraped(place.relay.internal_port))["relay_loop_lag_seconds_count"] <= before:
            await asyncio.sleep(0.05)


async def test_a_visitor_makes_no_series(place: Place) -> None:
    """Whatever it calls, by whatever method, path and field: no label takes a value of its choice."""
    before = await scraped(place.relay.internal_port)
    heads = [
        b"GET /%d?a=%d HTTP/1.1\r\nHost: %s\r\nUser-Agent: made-up\r\nConnection: close\r\n\r\n" % (i, i, host)
        for i, host in enumerate((HOST, b"made-up.tunnels.localhost", b"made-up.example", b'a"b\\c', b"x" * 300))
    ]
    heads.append(b"MADEUP / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % HOST)
    heads.append(b"REPORT /made-up HTTP/1.1\r\nHost: %s\r\nMcp-Method: made-up\r\nConnection: close\r\n\r\n" % HOST)
    for head in heads:
        await exchange(place.relay.public_port, head)
    after = await scraped(place.relay.internal_port)
    assert set(after) == set(before)


async def test_metrics_are_never_public(place: Place) -> None:
    """Not by the domain's own name, by no name, nor on the listener of agents."""
    relay = place.relay
    for host in (b"tunnels.localhost", b"127.0.0.1", b"localhost"):
        for port in (relay.public_port, relay.agents_port):
            for path in ("/metrics", "/readyz", "/livez"):
                status, text = await get(port, path, host)
                assert status in (400, 404)
                assert "relay_requests_total" not in text


async def test_a_revocation_is_counted_with_its_time(place: Place) -> None:
    """What it cut is lost for that reason, and the agent that was told is not ready any more."""
    relay = place.relay
    before = await scraped(relay.internal_port)
    key_file = relay.data / "other.key"
    key_file.write_text(await relay.api.mint() + "\n")
    given: dict[str, Any] = {"relay_port": relay.agents_port, "key_file": key_file}
    async with AgentProcess(1, **given, subdomain="gone", args=("--links", "1", "--quiet")) as agent:
        await agent.established()
        await told(relay.internal_port, {"relay_tunnels_live": 2})
        await relay.api.do("POST", f"/keys/{id_of(key_file.read_text().strip())}/revoke", {})
        counted = (
            "relay_revocations_total",
            "relay_revocation_cut_seconds_count",
            'relay_revocation_cut_seconds_bucket{le="1.0"}',
            'relay_links_lost_total{reason="revoked"}',
        )
        wanted = {name: before[name] + 1 for name in counted} | {"relay_tunnels_live": 1}
        await told(relay.internal_port, wanted)


async def test_an_agent_without_a_relay_says_why_it_is_not_ready(place: Place) -> None:
    """It is alive all the same."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    arguments = ("--metrics", "127.0.0.1:0")
    async with AgentProcess(1, relay_port=port, key_file=place.relay.key_file, args=arguments) as agent:
        address = (await agent.wait_event("metrics", 10))["address"]
        own = int(address.rpartition(":")[2])
        await agent.wait_event("disconnected", 10)
        assert (await get(own, "/livez"))[0] == 200
        status, text = await get(own, "/readyz")
        assert status == 503
        assert text.startswith("no link to the relay is up: connection refused")
        found = await scraped(own)
        assert (found["relay_agent_ready"], found["relay_agent_links_live"]) == (0, 0)
        assert found["relay_agent_link_attempts_failed_total"] >= 1


@pytest.mark.parametrize("by", ["flag", "variable"])
async def test_an_address_that_is_taken_or_wrong_is_a_mistake(place: Place, by: str) -> None:
    """One sentence that names the option, the accepted form and an example; the exit code of a mistake."""
    for value, words in (
        (f"127.0.0.1:{place.agent_port}", r"\(--metrics, RELAY_METRICS\) cannot be served at .*Address already in use"),
        ("9091", r"HOST:PORT or \[IPV6\]:PORT, for example .*127\.0\.0\.1:9091, but it is '9091'"),
    ):
        given: dict[str, Any] = {"args": ("--metrics", value)} if by == "flag" else {"env": {"RELAY_METRICS": value}}
        agent = AgentProcess(1, relay_port=1, key_file=place.relay.key_file, **given)
        await agent.start()
        assert await agent.wait() == 2, agent.report()
        assert re.search(words, agent.stderr), agent.stderr
        assert len(agent.stderr.splitlines()) == 1
