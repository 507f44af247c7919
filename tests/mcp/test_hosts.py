"""The SDK's protection against DNS rebinding, at a local server behind a tunnel: as strict as without one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.mcp.peers import Answer, Exposed, House, ask
from tests.support.processes import DOMAIN

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("mcp-hosts")]  # few servers for all

EVIL = "http://evil.example"
PARAMS = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
INITIALIZE = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": PARAMS}).encode()
SDKS = pytest.mark.parametrize("sdk", [1, 2])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """A relay with its usual timeouts."""
    async with House() as found:
        yield found


async def initialize(port: int, host: str, origin: str | None = None) -> Answer:
    """An initialize request as a browser would send it."""
    headers = {"Host": host, "Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    return await ask(port, "POST", "/mcp", headers | ({"Origin": origin} if origin else {}), INITIALIZE)


async def direct(exposed: Exposed, origin: str | None = None, host: str | None = None) -> Answer:
    """Without the tunnel."""
    return await initialize(exposed.server.port, host or f"127.0.0.1:{exposed.server.port}", origin)


async def through(house: House, exposed: Exposed, origin: str | None = None) -> Answer:
    """Through the tunnel, by its public name."""
    return await initialize(house.relay.public_port, exposed.url.removeprefix("http://"), origin)


def told(answer: Answer) -> tuple[int, str | None, bytes]:
    """What a browser's page would learn."""
    return answer.status, answer.headers.get("content-type"), answer.body


async def last_fact(exposed: Exposed) -> Any:
    """The last request to /mcp as the server saw it."""
    facts = await ask(exposed.server.port, "GET", "/facts", {"Host": "facts"})
    return [fact for fact in json.loads(facts.body) if fact["path"] == "/mcp"][-1]


@SDKS
async def test_a_foreign_origin_is_refused_alike(house: House, sdk: int) -> None:
    """A page of another site gets the server's own 403, through the tunnel as without it."""
    exposed = await house.expose(sdk, "--stateless")
    refused = await direct(exposed, EVIL)
    assert refused.status == 403
    assert told(await through(house, exposed, EVIL)) == told(refused)


@SDKS
async def test_the_tunnels_own_origin_is_accepted(house: House, sdk: int) -> None:
    """A page of the tunnel itself is of the same origin for the server too."""
    exposed = await house.expose(sdk, "--stateless")
    answer = await through(house, exposed, exposed.url)
    assert answer.status == 200
    assert (await last_fact(exposed))["headers"]["origin"] == exposed.server.url


@SDKS
async def test_the_origin_of_a_sibling_is_foreign(house: House, sdk: int) -> None:
    """Another tunnel of the same relay, another port and another scheme are not the tunnel's own origin."""
    exposed = await house.expose(sdk, "--stateless")
    others = [house.address("sibling"), exposed.url.rpartition(":")[0], exposed.url.replace("http:", "https:"), "null"]
    for origin in others:
        assert (await through(house, exposed, origin)).status == 403, origin


@SDKS
async def test_the_server_sees_its_own_host(house: House, sdk: int) -> None:
    """Host is the local one, or the check would refuse it; the public name stands in `X-Forwarded-*`."""
    exposed = await house.expose(sdk, "--stateless")
    assert (await through(house, exposed)).status == 200
    headers = (await last_fact(exposed))["headers"]
    assert headers["host"] == f"127.0.0.1:{exposed.server.port}"
    assert headers["x-forwarded-host"] == exposed.url.removeprefix("http://")
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-for"] == "127.0.0.1"


@SDKS
async def test_a_preserved_host_is_judged_by_the_server(house: House, sdk: int) -> None:
    """With --preserve-host a server that does not expect the public name says 421, as it would direct."""
    exposed = await house.expose(sdk, "--stateless", "--allow-host", "nobody", agent_args=["--preserve-host"])
    public = exposed.url.removeprefix("http://")
    refused = await direct(exposed, host=public)
    assert refused.status == 421
    assert told(await through(house, exposed)) == told(refused)


@SDKS
async def test_a_preserved_host_that_is_expected_is_served(house: House, sdk: int) -> None:
    """With --preserve-host a server that expects the public name takes it, with its origin."""
    name = f"kept{sdk}"
    public = f"{name}.{DOMAIN}:{house.relay.public_port}"
    flags = ["--stateless", "--allow-host", public]
    exposed = await house.expose(sdk, *flags, name=name, agent_args=["--preserve-host"])
    assert (await through(house, exposed, exposed.url)).status == 200
    headers = (await last_fact(exposed))["headers"]
    assert (headers["host"], headers["origin"]) == (public, exposed.url)
    assert (await through(house, exposed, EVIL)).status == 403
