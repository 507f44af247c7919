"""The published tutorial for delegated keys, its lines typed into a real shell, its output read as a person reads it.

What is changed is the port of the local service, which is a free one. The shell runs on the relay's machine, or after a
login; which of a machine's relays is meant is said by the environment, as there may be others here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.child import clean_environment
from tests.support.local import LocalService
from tests.support.messages import Response
from tests.support.processes import DOMAIN, RelayProcess
from tests.support.rawhttp import exchange

NAME = "mcp-yourname"


class Shell:
    """`sh` that reads its commands from us, one after the other; what runs in the background writes to files."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self._environment = environment
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> Shell:
        self._process = await asyncio.create_subprocess_exec(
            "sh",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
            cwd=self.folder,
            start_new_session=True,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        async with asyncio.timeout(10):
            await self._process.communicate()

    async def type(self, line: str) -> list[str]:
        """The lines that a command printed, once it has ended; its exit code must be 0."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\necho done: $?\n".encode())
        lines: list[str] = []
        async with asyncio.timeout(30):
            while not (said := (await self._process.stdout.readline()).decode()).startswith("done: "):
                assert said, lines
                lines.append(said.rstrip("\n"))
        assert said == "done: 0\n", lines
        return lines

    async def start(self, line: str, name: str) -> Path:
        """What a command that goes on prints; its exit code follows as a last line."""
        path = self.folder / name
        await self.type(f"( {line} >{name} 2>&1; echo exit code $? >>{name} ) &")
        return path


async def seen(path: Path, pattern: str) -> str:
    """The line of a file that matches, once it is there."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        text = path.read_text() if path.exists() else ""
        if found := re.search(f"^.*(?:{pattern}).*$", text, re.MULTILINE):
            return found[0]
        await asyncio.sleep(0.02)
    raise AssertionError(f"no line matches {pattern!r} in:\n{text}")


@pytest.fixture(params=["on the relay's machine", "after a login"])
async def shell(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Shell, RelayProcess]]:
    async with RelayProcess() as relay:
        url = f"ws://127.0.0.1:{relay.agents_port}"
        environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        environment |= {"HOME": str(tmp_path), "XDG_CONFIG_HOME": ""}
        if request.param == "on the relay's machine":
            environment |= {"RELAY_URL": url, "RELAY_DATA": str(relay.data)}
        async with Shell(tmp_path, clean_environment(environment)) as one:
            if request.param == "after a login":
                said = await one.type(f"mytunnel login --relay {url} < {relay.data}/operator.key")
                assert any(relay.api.id in line for line in said)
                assert relay.api.key not in "\n".join(said)
            yield one, relay


async def visit(relay: RelayProcess) -> Response:
    request = f"GET /echo HTTP/1.1\r\nHost: {NAME}.{DOMAIN}\r\nConnection: close\r\n\r\n"
    return await exchange(relay.public_port, request.encode())


async def test_the_tutorial_runs_as_written(shell: tuple[Shell, RelayProcess]) -> None:
    """Both tunnels bear the same name; the master key's revocation ends its agent and every key that it minted."""
    sh, relay = shell
    async with LocalService() as local:
        first = await sh.start(f"mytunnel http {local.port} --subdomain mcp-yourname", "first")
        assert f"http://{NAME}.{DOMAIN}:{relay.public_port}" in await seen(first, r"https?://mcp-yourname")
        assert (await visit(relay)).status == 200

        said = "\n".join(await sh.type("mytunnel projects create mcp-server"))
        found = re.search(r"Project created: (proj_mcp\w+)\s+Master key: (mtk_master_\w+)", said)
        assert found is not None, said
        assert "once" in said
        key = found[2]

        assert await sh.type(f"export MTK_MASTER={key}") == []
        second = await sh.start(f"mytunnel http {local.port} --subdomain mcp-yourname --project mcp-server", "second")
        await seen(second, r"https?://mcp-yourname")
        await seen(first, "exit code 4")  # it is told that the name moved, and does not fight for it
        assert "project" in await seen(first, "mcp-yourname.*(belongs|moved)|(belongs|moved).*mcp-yourname")
        assert (await visit(relay)).status == 200

        # The tutorial's project has three agents by now; here the keys of two more.
        for _ in range(2):
            assert (await sh.type("mytunnel keys mint --quiet"))[0].startswith("mtk_child_")
        assert await sh.type(f"mytunnel keys revoke --cascade {key}") == [
            "Revoked 1 master key.",
            "Revoked 3 child keys (cascade).",
        ]
        await seen(second, "exit code 6")
        assert key.rpartition("_")[0] in await seen(second, "revoked")
        assert (await visit(relay)).status == 503
        assert await sh.type(f"mytunnel keys revoke --cascade {key}") == [
            f"{key.rpartition('_')[0]} was revoked already."
        ]
        for path in (first, second):
            text = path.read_text()
            assert key not in text
            assert relay.api.key not in text
            assert "Traceback" not in text
