"""A network of its own for one process: a namespace with one cable to this machine, whose address a test changes.

    async with NetSpace() as space: Child([*space.prefix, "program"]); await space.move()

Needs root and Linux; `available()` tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from typing import Self

from tests.support.child import ChildError


def available() -> bool:
    """Whether this process may make one."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0


class NetSpace:
    """`here` is this machine's address on the cable, `there` the namespace's. Both are private ones."""

    def __init__(self) -> None:
        number = os.getpid() % 250 + 1
        self.name = f"relay-test-{os.getpid()}"
        self._cable = f"rt{os.getpid()}"
        self._net = f"10.213.{number}"
        self._host = 2
        self.here = f"{self._net}.1"

    @property
    def there(self) -> str:
        """The namespace's address now."""
        return f"{self._net}.{self._host}"

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before the words of a command that is to run there."""
        return ("ip", "netns", "exec", self.name)

    async def __aenter__(self) -> Self:
        try:
            await _ip("netns", "add", self.name)
            await _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self.name)
            await _ip("addr", "add", f"{self.here}/24", "dev", self._cable)
            await _ip("link", "set", self._cable, "up")
            await self._inside("link", "set", "lo", "up")
            await self._inside("link", "set", "eth0", "up")
            await self._inside("addr", "add", f"{self.there}/24", "dev", "eth0")
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        for words in (("link", "del", self._cable), ("netns", "del", self.name)):
            with contextlib.suppress(ChildError):  # what was not made, or has gone by itself
                await _ip(*words)

    async def move(self) -> None:
        """To another network: the old address is gone, and with it whatever came from it."""
        await self._inside("addr", "del", f"{self.there}/24", "dev", "eth0")
        self._host += 1
        await self._inside("addr", "add", f"{self.there}/24", "dev", "eth0")

    async def unplug(self) -> None:
        """No network at all."""
        await self._inside("link", "set", "eth0", "down")

    async def plug(self) -> None:
        """The network is back."""
        await self._inside("link", "set", "eth0", "up")

    async def _inside(self, *words: str) -> None:
        await _ip("-n", self.name, *words)


async def _ip(*words: str) -> None:
    process = await asyncio.create_subprocess_exec("ip", *words, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    if process.returncode:
        raise ChildError(f"ip {' '.join(words)}: {said.decode().strip()}")
