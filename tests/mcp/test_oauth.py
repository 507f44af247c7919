"""A sample server with the SDK's OAuth: discovery, registration, a code, a token and a call, all by the public address.

The server must name that address in its metadata. Three ways: its settings say so, it reads `X-Forwarded-*`, or it
reads `Host` and the agent preserves that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.mcp.peers import Exposed, House, Transcript, ask
from tests.support.child import Event
from tests.support.longer import LONGER
from tests.support.processes import DOMAIN

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("mcp-oauth")]  # few servers for all

PAIRS = pytest.mark.parametrize(("server", "client"), [(1, 2), pytest.param(2, 1, marks=LONGER)])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """A relay with its usual timeouts."""
    async with House() as found:
        yield found


def warns_of_metadata(event: Event) -> bool:
    """Whether the agent says that the server's metadata sends visitors to its local address."""
    return event["event"] == "hint" and "local address" in event["message"]


async def authorised(house: House, client: int, exposed: Exposed) -> Transcript:
    """The transcript through the tunnel, once it is clear that it holds what it should."""
    transcript = await house.play(client, "authorised", exposed.url)
    steps = {entry["step"]: entry["result"] for entry in transcript}
    refused = steps["without a token"]
    assert refused["status"] == 401
    named = 'resource_metadata="ORIGIN/.well-known/oauth-protected-resource/mcp"'
    assert named in refused["headers"]["www-authenticate"]
    assert steps["resource metadata"]["body"]["resource"] == "ORIGIN/mcp"
    assert steps["server metadata"]["body"]["token_endpoint"] == "ORIGIN/token"
    assert steps["authorization endpoint"] == "ORIGIN/authorize"
    assert steps["add"]["content"][0]["text"] == "23"
    assert steps["who_calls"]["content"][0]["text"] == "CLIENT"
    assert steps["token scope"] == "use"
    assert not any(warns_of_metadata(event) for event in exposed.agent.events)
    return transcript


@PAIRS
async def test_an_address_in_the_settings(house: House, server: int, client: int) -> None:
    """A server that is told its public address: the whole of OAuth completes through the tunnel."""
    name = f"told{server}"
    origin = f"http://{name}.{DOMAIN}:{house.relay.public_port}"
    exposed = await house.expose(server, "--oauth", "--origin", origin, name=name)
    await authorised(house, client, exposed)


@PAIRS
async def test_an_address_from_forwarded_headers(house: House, server: int, client: int) -> None:
    """A server that believes `X-Forwarded-*`: the same transcript as direct."""
    exposed = await house.expose(server, "--oauth", "--origin-from", "forwarded")
    direct = await house.play(client, "authorised", exposed.server.url)
    assert await authorised(house, client, exposed) == direct


@PAIRS
async def test_an_address_from_a_preserved_host(house: House, server: int, client: int) -> None:
    """A server that believes `Host`, which --preserve-host leaves as the visitor sent it: the same transcript."""
    name = f"host{server}"
    flags = ["--oauth", "--origin-from", "host", "--allow-host", f"{name}.{DOMAIN}:{house.relay.public_port}"]
    exposed = await house.expose(server, *flags, name=name, agent_args=["--preserve-host"])
    direct = await house.play(client, "authorised", exposed.server.url)
    assert await authorised(house, client, exposed) == direct


@pytest.mark.parametrize(
    ("name", "method", "path"),
    [
        ("resource", "GET", "/.well-known/oauth-protected-resource/mcp"),
        ("issuer", "GET", "/.well-known/oauth-authorization-server"),
        ("challenge", "POST", "/mcp"),
    ],
)
async def test_a_local_address_in_metadata_gives_a_hint(house: House, name: str, method: str, path: str) -> None:
    """Where an answer sends the visitor to the server's local address, the agent says so."""
    exposed = await house.expose(2, "--oauth", name=name)
    headers = {"Host": exposed.url.removeprefix("http://"), "Content-Type": "application/json"}
    answer = await ask(house.relay.public_port, method, path, headers)
    assert answer.status == (401 if name == "challenge" else 200)
    hint = await exposed.agent.wait_event(warns_of_metadata)
    assert exposed.server.url in hint["message"]
    assert "--preserve-host" in hint["message"]
