"""MCP over the tunnel path's ASGI callable, under the servers that are tested with it: the same transcripts again."""

from __future__ import annotations

import pytest

from tests.mcp.peers import SHORT, SILENCE, House
from tests.mcp.test_pairs import check_sessions
from tests.support.longer import LONGER
from tests.support.processes import Edge


@pytest.mark.parametrize("edge", ["asgi-uvicorn", pytest.param("asgi-hypercorn", marks=LONGER)])
async def test_sessions_under_another_server(edge: Edge) -> None:
    """Sessions, progress, requests of the server, cancellation, resumption, silences: as direct."""
    async with House(*SHORT, edge=edge) as house:
        exposed = await house.expose(2)
        direct = await house.play(2, "sessions", exposed.server.url)
        check_sessions(direct)
        assert await house.play(2, "sessions", exposed.url, SILENCE) == direct


@pytest.mark.parametrize("edge", ["asgi-uvicorn", pytest.param("asgi-hypercorn", marks=LONGER)])
async def test_older_transport_under_another_server(edge: Edge) -> None:
    """HTTP+SSE of 2024: as direct."""
    async with House(*SHORT, edge=edge) as house:
        exposed = await house.expose(1, "--sse")
        direct = await house.play(1, "older", exposed.server.url)
        assert await house.play(1, "older", exposed.url) == direct
