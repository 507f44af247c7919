"""Each SDK generation as server and as client: one script, direct and through a tunnel, one transcript."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.mcp.peers import SHORT, SILENCE, House, Transcript
from tests.support.longer import LONGER

pytestmark = pytest.mark.asyncio(loop_scope="module")

GROUPS = {sdk: pytest.mark.xdist_group(f"mcp{sdk}") for sdk in (1, 2)}  # the tests of one server beside each other


def pairs(*short: tuple[int, int]) -> pytest.MarkDecorator:
    """Every server with every client; a short run has those that are named."""
    cases = []
    for pair in ((1, 1), (1, 2), (2, 1), (2, 2)):
        marks = [GROUPS[pair[0]]] if pair in short else [GROUPS[pair[0]], *LONGER]
        cases.append(pytest.param(*pair, id="server{}-client{}".format(*pair), marks=marks))
    return pytest.mark.parametrize(("server", "client"), cases)


VERSIONS = [pytest.param(1, "2025-11-25", marks=GROUPS[1]), pytest.param(2, "2026-07-28", marks=GROUPS[2])]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """A relay whose timeouts are shorter than the silences of the scripts."""
    async with House(*SHORT) as found:
        yield found


def results(transcript: Transcript, step: str) -> list[Any]:
    """What came of each step of this name."""
    return [entry["result"] for entry in transcript if entry["step"] == step]


def texts(transcript: Transcript, step: str) -> list[str]:
    """The text answers of each call of this tool."""
    return [result["content"][0]["text"] for result in results(transcript, step)]


def check_tools(transcript: Transcript) -> None:
    """The plain tools answered as they should, the large and the odd texts included."""
    assert {"add", "echo", "walk"} <= set(results(transcript, "tools/list")[0])
    assert texts(transcript, "add") == ["5"]
    assert texts(transcript, "echo") == ["Grüße, 世界 \0\r\n\r\ndata: no event\u2028"]
    assert results(transcript, "echo, large") == [True]
    assert results(transcript, "fail")[0]["isError"]
    assert results(transcript, "no_such_tool")[0]["isError"]


def check_progress(transcript: Transcript) -> None:
    """Five progress notifications, each before the next was sent, and then the result."""
    walk = results(transcript, "walk")[0]
    assert walk["progress"] == [[step, 5, f"step {step}"] for step in range(1, 6)]
    assert walk["result"]["content"][0]["text"] == "walked 5"


def check_sessions(transcript: Transcript) -> None:
    """Everything that a session has was seen."""
    check_tools(transcript)
    check_progress(transcript)
    assert results(transcript, "initialize")[0]["protocolVersion"] == "2025-11-25"
    assert texts(transcript, "ask_model") == ["the model says: echo of the capital of France"]
    assert texts(transcript, "ask_person") == ["accept: Ada"]
    assert texts(transcript, "ask_roots") == ["file:///tmp/work"]
    asked = [{"sampling": "the capital of France"}, {"elicitation": "Who are you?"}, {"roots": True}]
    assert results(transcript, "asked") == [asked]
    assert texts(transcript, "was_cancelled") == ["true"]
    assert texts(transcript, "interrupted") == ["resumed"]
    assert results(transcript, "heard") == [["before the gap", "after the gap"], "after the silence"]
    assert texts(transcript, "silent") == ["still here"]
    assert results(transcript, "a request after DELETE")[0]["status"] == 404
    seen = results(transcript, "requests that the server saw")[0]
    assert seen["DELETE 200"] == 1
    assert seen["GET 200"] == 1
    assert seen["GET 200 resuming"] == 1
    resumed = results(transcript, "resumed")[0]
    assert resumed["before"] == ["part 1"]
    assert resumed["after"] == ["part 2", "part 3"]
    assert resumed["result"]["content"][0]["text"] == "told 3"


@pairs((1, 2), (2, 1))
async def test_sessions(house: House, server: int, client: int) -> None:
    """Streamable HTTP with sessions: what was seen direct is seen through the tunnel, long silences included."""
    exposed = await house.expose(server)
    direct = await house.play(client, "sessions", exposed.server.url)
    check_sessions(direct)
    assert await house.play(client, "sessions", exposed.url, SILENCE) == direct


@pairs((1, 1), (2, 2))
async def test_stateless_json(house: House, server: int, client: int) -> None:
    """Without sessions and with JSON answers: the same transcript both ways."""
    exposed = await house.expose(server, "--stateless")
    direct = await house.play(client, "stateless", exposed.server.url)
    assert results(direct, "session") == [""]
    check_tools(direct)
    assert await house.play(client, "stateless", exposed.url) == direct


@pairs((1, 1), (2, 2))
async def test_older_transport(house: House, server: int, client: int) -> None:
    """HTTP+SSE of 2024, whose first event names the path for messages: the same transcript both ways."""
    exposed = await house.expose(server, "--sse")
    direct = await house.play(client, "older", exposed.server.url)
    check_tools(direct)
    check_progress(direct)
    assert results(direct, "asked") == [[{"sampling": "the capital of France"}, {"elicitation": "Who are you?"}]]
    assert await house.play(client, "older", exposed.url) == direct


@pytest.mark.parametrize(("server", "version"), VERSIONS)
async def test_negotiated(house: House, server: int, version: str) -> None:
    """A client that negotiates finds the same protocol both ways, new or old, and all of it works."""
    exposed = await house.expose(server)
    direct = await house.play(2, "negotiated", exposed.server.url)
    assert results(direct, "negotiated") == [{"version": version, "session": version < "2026"}]
    check_tools(direct)
    check_progress(direct)
    assert texts(direct, "was_cancelled") == ["true"]
    if version >= "2026":
        assert texts(direct, "ask_in_rounds") == ["asked, accept: Ada"]
        assert results(direct, "heard") == ["ToolsListChanged"]
    assert await house.play(2, "negotiated", exposed.url, SILENCE) == direct
