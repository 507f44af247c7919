"""Who comes to the containers from outside: agents and visitors over Caddy's TLS, by the ports of this machine.

They trust the authority that they are given and nothing else. Names below `.localhost` are this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from tests.compose.engine import DOMAIN, ROOT, Stack
from tests.support.child import Child
from tests.support.pattern import Meter, pieces

PIECE = 1024 * 1024


class Agent(Child):
    """`relay http` on this machine, to the relay behind Caddy."""

    fresh = True  # the authority is read when the process starts

    def __init__(self, stack: Stack, authority: Path, target: int, name: str, key: Path) -> None:
        argv = [sys.executable, "-m", "relay", "http", str(target), "--subdomain", name, "--json"]
        argv += ["--relay", f"wss://{DOMAIN}:{stack.https}", "--key-file", str(key)]
        super().__init__(argv, name="agent", env={"SSL_CERT_FILE": str(authority)})

    async def start(self) -> None:
        await super().start()
        await self.wait_event("established", 20)


class Here(AbstractResolver):
    """Every name is this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=socket.AI_NUMERICHOST
            )
        ]

    async def close(self) -> None:
        """See `AbstractResolver`."""


@dataclass(frozen=True, slots=True)
class Outside:
    """This machine before one stack."""

    stack: Stack
    authority: Path
    folder: Path

    @property
    def context(self) -> ssl.SSLContext:
        """What trusts the authority alone."""
        return ssl.create_default_context(cafile=str(self.authority))

    def url(self, name: str, path: str = "/") -> str:
        """A tunnel's public address."""
        return f"https://{name}.{DOMAIN}:{self.stack.https}{path}"

    def agent(self, target: int, name: str, key: Path) -> Agent:
        """Not started yet."""
        return Agent(self.stack, self.authority, target, name, key)

    def key(self, *words: str) -> tuple[str, Path]:
        """A child key that the operator mints in the container: its id, and a file that holds it."""
        made = self.stack.json("keys", "mint", *words)
        file = self.folder / f"{made['key']['id'][-12:]}.key"
        file.touch(mode=0o600)
        file.write_text(made["text"] + "\n")
        return made["key"]["id"], file

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """HTTP/1.1, and no limit of time."""
        connector = aiohttp.TCPConnector(resolver=Here(), ssl=self.context, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
            yield session

    async def visit(self, name: str, path: str = "/echo", seconds: float = 30) -> int:
        """The status of one GET, on a connection of its own."""
        async with asyncio.timeout(seconds), self.session() as session, session.get(self.url(name, path)) as answer:
            await answer.read()
            return answer.status

    async def recovered(self, name: str, path: str = "/echo", seconds: float = 30) -> float:
        """Seconds until a visit is answered with 200."""
        began = time.monotonic()
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                if await self.visit(name, path, 15) == 200:
                    return time.monotonic() - began
            assert time.monotonic() - began < seconds, f"{name} was not answered within {seconds} s"
            await asyncio.sleep(0.1)

    async def recovered_socket(self, name: str) -> None:
        """Waits for the name's certificate, which is made when somebody calls it first."""
        connection = asyncio.open_connection(
            "127.0.0.1", self.stack.https, ssl=self.context, server_hostname=f"{name}.{DOMAIN}"
        )
        _, writer = await asyncio.wait_for(connection, 20)
        writer.transport.abort()

    # ---- curl, as a visitor that speaks HTTP/2

    def _curl(self, *words: str) -> list[str]:
        return ["curl", "-sS", "--cacert", str(self.authority), "--max-time", "300", *words]

    async def curl(self, *words: str) -> bytes:
        """What it printed. Raises AssertionError when it failed."""
        process = await asyncio.create_subprocess_exec(*self._curl(*words), stdout=-1, stderr=-1)
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return out

    async def download(self, url: str) -> Meter:
        """A body of the pattern, by HTTP/2."""
        process = await asyncio.create_subprocess_exec(*self._curl("--http2", url), stdout=-1, limit=PIECE)
        assert process.stdout is not None
        meter = Meter()
        while data := await process.stdout.read(PIECE):
            meter.add(data)
        assert await process.wait() == 0
        return meter

    async def upload(self, url: str, size: int) -> dict[str, Any]:
        """The pattern, by HTTP/2 and without a length; what /sink told of it."""
        process = await asyncio.create_subprocess_exec(
            *self._curl("--http2", "-T", "-", "-X", "POST", url), stdin=-1, stdout=-1, limit=PIECE
        )
        assert process.stdin is not None
        for piece in pieces(size, 512 * 1024):
            process.stdin.write(piece)
            await process.stdin.drain()
        process.stdin.close()
        out, _ = await process.communicate()
        assert process.returncode == 0
        told = json.loads(out)
        assert isinstance(told, dict)
        return told


def http3(url: str, authority: Path) -> dict[str, int]:
    """The status of one GET by HTTP/3, and how long its body was."""
    program = [str(ROOT / ".venvs/quic/bin/python"), str(ROOT / "tests/compose/http3.py"), url, str(authority)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert isinstance(told, dict)
    return told


def mcp_session(url: str, authority: Path) -> list[dict[str, Any]]:
    """What the official SDK's client tells of a session: it lists the tools, calls two, one with progress."""
    python = ROOT / ".venvs" / "mcp2" / "bin" / "python"
    argv = [str(python), str(ROOT / "scripts" / "demo_client.py"), url]
    environment = {"SSL_CERT_FILE": str(authority), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def eventually(what: Callable[[], bool], seconds: float) -> float:
    """Seconds until something was so; looks every 10 ms."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, f"not within {seconds} s"
        await asyncio.sleep(0.01)
    return time.monotonic() - began
