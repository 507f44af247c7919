"""Frames that are legal one by one and mean nothing, by the million; and agents that send them, in their own process.

    async with Flooding(relay, 4) as flooding: ... await flooding.stopped()

Each of them comes back at once whenever it was cut, with another flood.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
from collections import Counter

from relay.wire import frames
from tests.support.child import Child, Event
from tests.support.faultprocess import run_loop, say, stdin_lines
from tests.support.processes import RelayProcess
from tests.system.hostileagent import frame, head_of
from tests.system.noise import nice
from tests.system.rawlink import CONTINUATION, PING, PONG, RawLink, message

MIB = 2**20
POURED = 50
"""A flood is sent so often, unless its link has ended before."""
WORDS = "more than 10000 frames in a second that carry nothing"
TOO_MUCH = f"PROTOCOL_ERROR: {WORDS}"


def full(one: bytes) -> bytes:
    """As many of these frames as a message holds."""
    return message(one * (MIB // len(one)))


# About a MiB each; on stream 1, which was opened by the relay, answered, and is closed.
FLOODS: dict[str, bytes] = {
    "pings": full(frames.encode(frames.PING, 0, bytes(8))),
    "pongs": full(frames.encode(frames.PONG, 0, bytes(8))),
    "credit": full(frames.encode_credit(0, 1)),
    "credit for a closed stream": full(frames.encode_credit(1, 1)),
    "resets": full(frames.encode_reset(1, 0)),
    "empty data": full(frame(frames.DATA, 1)),
    "ends": full(frame(frames.END, 1)),
    "heads": full(frame(frames.HEAD, 1, head_of(103, []))),
    "extensions": full(frame(0x99, 7)),
    "going away": full(frames.encode_going_away(0, 0, "bye")),
    "empty messages": message(b"") * (MIB // 6),
    "pings of the WebSocket": message(b"", kind=PING) * (MIB // 6),
    "pongs of the WebSocket": message(b"", kind=PONG) * (MIB // 6),
    "fragments of a byte": message(b"", fin=False) + message(b"a", kind=CONTINUATION, fin=False) * (MIB // 7),
}
# Those that need no stream: nobody calls the names of flooding agents.
ANY_TIME = [
    what for what in FLOODS if what not in ("credit for a closed stream", "resets", "empty data", "ends", "heads")
]


class Flooding(Child):
    """`count` hostile agents, each with a name of its own."""

    def __init__(self, relay: RelayProcess, count: int) -> None:
        argv = [sys.executable, "-m", "tests.system.flooding", str(relay.agents_port), str(relay.key_file), str(count)]
        super().__init__(argv, name="flooding agents")

    async def stopped(self) -> Event:
        """They stop: how often they were cut (`cut`), and how, by the words of each verdict (`verdicts`)."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await self.wait_event("stopped", 30.0)


# ---- in the process


async def _flood(port: int, key: str, name: str, verdicts: Counter[str], over: asyncio.Event) -> None:
    for kind in itertools.cycle(ANY_TIME):
        if over.is_set():
            return
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with RawLink(port, key, name) as link:
                await link.pour(FLOODS[kind], POURED)
                verdicts[await link.verdict()] += 1


async def _main(port: int, key: str, count: int) -> None:
    verdicts: Counter[str] = Counter()
    over = asyncio.Event()
    tasks = [asyncio.create_task(_flood(port, key, f"flood{number}", verdicts, over)) for number in range(count)]
    await (await stdin_lines()).read()
    over.set()
    await asyncio.wait(tasks, timeout=20)
    say(event="stopped", cut=verdicts.total(), verdicts=verdicts)


if __name__ == "__main__":
    nice(os.getpid())
    with open(sys.argv[2]) as file:
        run_loop(_main(int(sys.argv[1]), file.read().strip(), int(sys.argv[3])))
