"""Honest visitors in a process of their own: so many requests a second, and how long each answer took.

They send at their own times whether or not earlier answers came, so a relay that is late makes none of them wait with
its next request. Each carries a nonce, which its answer must bring back; one in ten comes on a new connection.

    async with Steady(port, host, rate=100) as steady:
        await steady.mark()
        ...
        seen = await steady.mark()      what was asked since the mark before
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass

from tests.support.child import Child
from tests.support.faultprocess import run_loop, say, stdin_lines
from tests.system.asker import Asker

ANSWER_DEADLINE = 15.0
NEW_EVERY = 10
FEW = 8


@dataclass(frozen=True, slots=True)
class Seen:
    """Times are seconds: from the request (of a new connection: its beginning) to the whole answer."""

    asked: int
    over: float
    """For so long."""
    in_time: float
    """The share of them that was answered by the end of that time; what came later is still counted below."""
    failed: dict[str, int]
    """By the status, `wrong` for somebody else's answer, `lost` or `late`."""
    p50: float
    p99: float
    """What all but one in a hundred took; of fewer than 900 requests all but eight, since a single pause of the machine
    catches four of a hundred a second, and is nobody's lateness."""
    worst: float

    @property
    def served(self) -> float:
        """The share of requests that were answered as they should."""
        return 1.0 - sum(self.failed.values()) / max(self.asked, 1)


class Steady(Child):
    """Visitors of `/count` at `host`; see the first lines."""

    def __init__(self, port: int, host: str, rate: float = 100.0) -> None:
        argv = [sys.executable, "-m", "tests.system.steady", str(port), host, str(rate)]
        super().__init__(argv, name="steady visitors")
        self._numbers = itertools.count(1)

    async def mark(self) -> Seen:
        """What became of the requests since the last call; the answers to those sent till now are waited for."""
        number, seen = next(self._numbers), len(self.events)
        assert self.process.stdin is not None
        self.process.stdin.write(b"%d\n" % number)
        await self.process.stdin.drain()
        told = await self.wait_event(lambda event: event.get("id") == number, 2 * ANSWER_DEADLINE, after=seen)
        return Seen(**told["seen"])

    async def seconds(self, seconds: float) -> Seen:
        """What becomes of the requests of the next so many seconds."""
        await self.mark()
        await asyncio.sleep(seconds)
        return await self.mark()


# ---- in the process


class _Crowd:
    """All visitors, and what they saw since the last mark."""

    def __init__(self, port: int, host: str, rate: float) -> None:
        self._port, self._host, self._rate = port, host, rate
        self._idle: list[Asker] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._forget()

    def _forget(self) -> None:
        self._took: list[float] = []
        self._failed: Counter[str] = Counter()
        self._since = time.monotonic()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in itertools.count():
            early = began + number / self._rate - loop.time()
            if early > 0:
                await asyncio.sleep(early)
            task = loop.create_task(self._one(number))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def told(self) -> dict[str, object]:
        """Since the last call."""
        over, in_time, late = time.monotonic() - self._since, len(self._took), list(self._under_way)
        asked = in_time + len(late)
        if late:
            await asyncio.wait(late)
        took = sorted(self._took) or [0.0]
        seen = {
            "asked": len(self._took),
            "over": over,
            "in_time": in_time / max(asked, 1),
            "failed": self._failed,
            "p50": took[len(took) // 2],
            "p99": took[max(0, min(int(len(took) * 0.99), len(took) - 1 - FEW))],
            "worst": took[-1],
        }
        self._forget()
        return seen

    async def _one(self, number: int) -> None:
        nonce = b"%d-%d" % (id(self), number)
        fields = b"GET /count HTTP/1.1\r\nHost: %b\r\nX-Nonce: %b\r\n\r\n" % (self._host.encode(), nonce)
        began, visitor, word = time.monotonic(), None, ""
        try:
            async with asyncio.timeout(ANSWER_DEADLINE):
                visitor = await self._visitor(number)
                word = _word(await visitor.ask(fields), nonce)
        except TimeoutError:
            word = "late"
        except OSError:
            word = "lost"
        self._took.append(time.monotonic() - began)
        if word:
            self._failed[word] += 1
            if visitor is not None:
                visitor.transport.abort()
        elif visitor is not None:
            self._idle.append(visitor)

    async def _visitor(self, number: int) -> Asker:
        if number % NEW_EVERY == 0 and self._idle:
            self._idle.pop(0).transport.close()
        while self._idle and number % NEW_EVERY:
            visitor = self._idle.pop()
            if not visitor.transport.is_closing():
                return visitor
        _, visitor = await asyncio.get_running_loop().create_connection(Asker, "127.0.0.1", self._port)
        return visitor


def _word(answer: bytes, nonce: bytes) -> str:
    """Empty for the answer that belongs to this nonce, else what it was."""
    if not answer:
        return "lost"
    status = answer.split(b" ", 2)[1].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "nonsense"
    if status != "200":
        return status
    try:
        told = json.loads(answer.partition(b"\r\n\r\n")[2])
    except ValueError:
        return "lost"
    return "" if told == {"nonce": nonce.decode(), "deliveries": 1} else "wrong"


async def _main(port: int, host: str, rate: float) -> None:
    crowd = _Crowd(port, host, rate)
    running = asyncio.create_task(crowd.run())
    async for line in await stdin_lines():
        say(id=int(line), seen=await crowd.told())
    running.cancel()


if __name__ == "__main__":
    run_loop(_main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
