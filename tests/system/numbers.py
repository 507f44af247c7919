"""What a relay counts about itself, read on its internal listener: for what a test can wait for in no other way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

from tests.support.child import Child
from tests.support.processes import RelayProcess
from tests.support.rawhttp import exchange

OPEN = ("relay_exchanges_open", "relay_streams_open", "relay_requests_held", "relay_visitor_connections")


def descriptors(process: Child) -> int:
    """Open descriptors of a process, but for those of files: the registry opens a few more of its file when it must."""
    folder, count = Path(f"/proc/{process.pid}/fd"), 0
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # the one that reads this very folder, or one just closed
            count += not os.readlink(folder / name).startswith("/")
    return count


async def numbers(relay: RelayProcess) -> dict[str, int]:
    """Every gauge without labels, by its name."""
    response = await exchange(relay.internal_port, b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    lines = [line.split() for line in response.body.decode().splitlines() if line and not line.startswith("#")]
    return {line[0]: int(float(line[1])) for line in lines}


async def until(relay: RelayProcess, wanted: dict[str, int], timeout: float = 5.0) -> None:
    """Return once the relay counts just this; raises AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        told = await numbers(relay)
        found = {name: told.get(name) for name in wanted}
        if found == wanted:
            return
        assert time.monotonic() < deadline, f"{found} and not {wanted} within {timeout} s"
        await asyncio.sleep(0.02)


async def nothing_left(relay: RelayProcess) -> None:
    """Return once the relay holds no exchange, stream, waiting request or visitor any more."""
    await until(relay, dict.fromkeys(OPEN, 0))
