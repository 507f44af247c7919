"""Where a run happens: a directory, the origins, free ports, and the processes that end with it.

This room starts processes and waits until they answer; which processes, is said by `systems` and `rivals`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import nginxconf
from tests.support.child import Child, ChildError
from tests.support.faultprocess import FaultProcess

READY_WITHIN = 20.0
PORTS = range(20_000, 32_000)
_SHARED_MEMORY = Path("/dev/shm")
_VERSION = re.compile(r"(?<![\d.:])\d+\.\d+\.\d+(?![\d.])")


class Unavailable(Exception):
    """A system cannot run here; the text says why."""


@dataclass(frozen=True, slots=True)
class Door:
    """How a visitor reaches an origin: a port of 127.0.0.1 and the `Host` to send."""

    port: int
    host: str = "localhost"


@dataclass(slots=True)
class Place:
    """What a system is given to start with. `one_way` is the delay in seconds between agent and relay."""

    directory: Path
    stack: contextlib.AsyncExitStack
    static: int = 0
    live: int = 0
    origins: tuple[Child, ...] = ()
    one_way: float | None = None
    """None: agents connect to their relay directly; else through a fault process with this delay."""

    async def run(self, argv: Sequence[str], name: str, env: Mapping[str, str] | None = None) -> Child:
        """A process that ends with the place."""
        return await self.stack.enter_async_context(Child(argv, name=name, env=env))

    async def reach(self, port: int) -> int:
        """The port by which an agent reaches this one: over the path with the delay, where there is one."""
        if self.one_way is None:
            return port
        path = await self.stack.enter_async_context(FaultProcess(port, delay=self.one_way))
        return path.port

    def inner(self, name: str, stack: contextlib.AsyncExitStack, one_way: float | None = None) -> Place:
        """A place of one system's own, with the same origins."""
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        return Place(directory, stack, self.static, self.live, self.origins, one_way)


def free_ports(count: int) -> list[int]:
    """Different ports that were free a moment ago, for programs that cannot choose one and say which.

    They are below those that a system gives out by itself, so that nobody gets one of them by chance meanwhile.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    return found


def program(name: str) -> str:
    """Its path. Raises Unavailable."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Unavailable(f"{name} is not on the PATH")
    return found


def version_of(name: str, option: str) -> str:
    """What a program says its version is; empty where it is absent or says none."""
    with contextlib.suppress(Unavailable, OSError, subprocess.TimeoutExpired):
        said = subprocess.run([program(name), option], capture_output=True, text=True, timeout=5.0, check=False)
        found = _VERSION.search(said.stdout + said.stderr)
        return found[0] if found else ""
    return ""


@contextlib.asynccontextmanager
async def place() -> AsyncIterator[Place]:
    """A directory that is removed at the end, with both origins in service. Raises Unavailable without nginx."""
    nginx = program("nginx")
    with tempfile.TemporaryDirectory(prefix="relay-bench-", dir=_memory()) as name:
        async with contextlib.AsyncExitStack() as stack:
            here = Place(Path(name), stack)
            [here.static] = free_ports(1)
            text = nginxconf.origin(here.directory, here.static, nginxconf.bulk_files(here.directory))
            static = await here.run(nginxconf.argv(nginx, here.directory, "origin", text), "origin")
            live = await here.run([sys.executable, "-m", "bench.live"], "live origin")
            here.live = int((await live.wait_event("listening", READY_WITHIN))["port"])
            here.origins = static, live
            await answers(Door(here.static), nginxconf.SMALL)
            yield here


def _memory() -> str | None:
    """Where files cost no disk; None for the usual place."""
    return str(_SHARED_MEMORY) if _SHARED_MEMORY.is_dir() else None


async def status(door: Door, path: str, within: float = 2.0) -> int:
    """The status of a GET; 0 when there was no answer."""
    try:
        async with asyncio.timeout(within):
            reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {door.host}\r\nConnection: close\r\n\r\n".encode())
                line = await reader.readline()
            finally:
                writer.close()
        return int(line.split()[1])
    except (OSError, TimeoutError, ValueError, IndexError):
        return 0


async def answers(door: Door, path: str, within: float = READY_WITHIN, every: float = 0.02) -> None:
    """Until a GET is answered 200. Raises ChildError."""
    deadline = time.monotonic() + within
    while await status(door, path) != 200:
        if time.monotonic() > deadline:
            raise ChildError(f"no answer on port {door.port} within {within:g} s")
        await asyncio.sleep(every)
