"""Visitors that no neighbour wants, in a process of their own with little claim to a processor.

aborts    so many a second connect, ask, and reset the connection at once
asks      so many ask one request after the other, whatever comes, as fast as it goes
any       the same, each for the next of whatever a hostile local service has
stopped   so many ask for more than fits anywhere, read the head, and nothing more

async with Noise("aborts", port, host, 500) as noise: ... await noise.done()
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
from pathlib import Path
from typing import Literal, get_args

from tests.support.child import Child
from tests.support.faultprocess import run_loop, say, stdin_lines
from tests.support.rawhttp import RawClient
from tests.support.rawstream import EndOfBytes

Kind = Literal["aborts", "asks", "any", "stopped"]
NICE = 10
ENDLESS = "/bytes/1099511627776"
_counts = {"done": 0}


class Noise(Child):
    """Starts once they make it: `stopped` when each has its head."""

    def __init__(self, kind: Kind, port: int, host: str, count: int) -> None:
        super().__init__([sys.executable, "-m", "tests.system.noise", kind, str(port), host, str(count)], name=kind)
        self._numbers = itertools.count(1)

    async def start(self) -> None:
        await super().start()
        await self.wait_event("ready", 30.0)

    async def done(self) -> int:
        """How many requests were made so far."""
        number, seen = next(self._numbers), len(self.events)
        assert self.process.stdin is not None
        self.process.stdin.write(b"%d\n" % number)
        told = await self.wait_event(lambda event: event.get("id") == number, 30.0, after=seen)
        return int(told["done"])


def nice(pid: int) -> None:
    """Gives a process, an agent of a noisy tunnel say, a tenth of another's claim to a processor.

    Where Linux shares processors among sessions first, as each child has one of its own, it is the session's claim.
    """
    os.setpriority(os.PRIO_PROCESS, pid, NICE)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(NICE))


# ---- in the process


def _request(host: str, target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


async def _aborts(port: int, request: bytes, rate: int) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in itertools.count():
        with contextlib.suppress(OSError, TimeoutError):
            visitor = await RawClient.connect(port)
            visitor.send(request)
            visitor.reset()
        _counts["done"] += 1
        await asyncio.sleep(max(began + number / rate - loop.time(), 0))


async def _asks(port: int, request: bytes) -> None:
    while True:
        with contextlib.suppress(OSError, TimeoutError, EndOfBytes):
            async with await RawClient.connect(port) as visitor:
                ended = "clean"
                while ended == "clean":
                    visitor.send(request)
                    ended = (await visitor.response()).ended
                    _counts["done"] += 1


async def _stopped(port: int, request: bytes) -> RawClient:
    visitor = await RawClient.connect(port, timeout=20)
    visitor.send(request)
    await visitor.head()
    visitor.stream.pause()
    _counts["done"] += 1
    return visitor


async def _main(kind: Kind, port: int, host: str, count: int) -> None:
    assert kind in get_args(Kind)
    kept: list[object] = []
    small = _request(host, "/any" if kind == "any" else "/count")
    if kind == "stopped":
        for start in range(0, count, 20):
            group = range(start, min(start + 20, count))
            kept += await asyncio.gather(*(_stopped(port, _request(host, ENDLESS)) for _ in group))
    elif kind == "aborts":
        kept.append(asyncio.create_task(_aborts(port, small, count)))
    else:
        kept += [asyncio.create_task(_asks(port, small)) for _ in range(count)]
    say(event="ready")
    async for line in await stdin_lines():
        say(id=int(line), done=_counts["done"])
    os._exit(0)  # all at once, with resets where bytes were not read


if __name__ == "__main__":
    nice(os.getpid())
    run_loop(_main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))  # type: ignore[arg-type]
