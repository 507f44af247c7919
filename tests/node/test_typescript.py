"""The official TypeScript SDK as server and client, and `mcp-remote`: one script, direct and through a tunnel."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.mcp.peers import SHORT, SILENCE
from tests.support.child import ROOT, Child, ChildError
from tests.support.processes import Tunnel, tunnel

HERE = Path(__file__).parent
PATIENCE = 60.0  # seconds for a whole script, beside its silence

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(not shutil.which("node") or not shutil.which("npm"), reason="node and npm are not on the PATH"),
    pytest.mark.xdist_group("node"),  # one installation of the packages
]


@pytest.fixture(scope="module")
def packages() -> None:
    """The pinned packages, installed once."""
    subprocess.run([str(ROOT / "scripts" / "node-packages")], check=True, timeout=300)


@pytest.fixture
async def server(packages: None) -> AsyncIterator[int]:
    """The port of the sample server."""
    async with Child(["node", str(HERE / "server.mjs")], name="TypeScript server") as child:
        yield (await child.wait_event("serving", 30))["port"]


@pytest.fixture
async def through(server: int) -> AsyncIterator[Tunnel]:
    """A tunnel to it, with timeouts that are shorter than the script's silence."""
    async with tunnel(server, subdomain="node", serve_args=SHORT) as found:
        yield found


async def play(base: str, *flags: str, config: Path | None = None) -> list[dict[str, Any]]:
    """Run the scripted client against an address; returns its transcript."""
    argv = ["node", "--import", str(HERE / "names.mjs"), str(HERE / "client.mjs"), f"{base}/mcp", *flags]
    env = {"MCP_REMOTE_CONFIG_DIR": str(config)} if config else {}
    async with Child(argv, name="TypeScript client", env=env) as client:
        if await client.wait(PATIENCE + SILENCE) != 0:
            raise ChildError(f"the script failed at {base}\n{client.report()}")
        transcript: list[dict[str, Any]] = json.loads(client.lines[-1])
        return transcript


def check(transcript: list[dict[str, Any]]) -> None:
    """Everything that the script does was seen to work."""
    steps = {entry["step"]: entry["result"] for entry in transcript}
    assert (steps["add"], steps["echo"], steps["echo, large"]) == ("5", True, True)
    assert steps["walk"] == {"result": "walked 5", "progress": [[step, 5] for step in range(1, 6)]}
    assert steps["ask_model"] == "the model says: echo of the capital of France"
    assert (steps["was_cancelled"], steps["interrupted"]) == ("true", "resumed")
    heard = [entry["result"] for entry in transcript if entry["step"] == "heard"]
    assert heard == [["before the gap", "after the gap"], "after the silence"]


async def test_sdk(server: int, through: Tunnel) -> None:
    """Sessions, progress, sampling, cancelling, resumption, DELETE: the same direct and through the tunnel."""
    direct = await play(f"http://127.0.0.1:{server}")
    check(direct)
    assert {entry["step"]: entry["result"] for entry in direct}["a request after DELETE"]["status"] == 404
    assert await play(through.url, "--silence", str(SILENCE)) == direct


async def test_mcp_remote(server: int, through: Tunnel, tmp_path: Path) -> None:
    """A client that speaks only to a local program reaches the server by `mcp-remote` and the public address."""
    direct = await play(f"http://127.0.0.1:{server}", "--remote", config=tmp_path / "direct")
    check(direct)
    assert await play(through.url, "--remote", "--silence", str(SILENCE), config=tmp_path / "through") == direct
