"""The soak's local service, in a process of its own: `local`'s, a WebSocket echo, and answers that break.

/break/close     the connection ends before any byte of an answer
/break/half      half of the answer, then a reset
/break/garbage   bytes that are no answer
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator

from tests.support.child import KEEP_MEMORY, Child
from tests.support.faultprocess import run_loop, say, stdin_lines
from tests.support.local import LocalService, Query
from tests.support.localws import websockets_echo
from tests.support.rawhttp import CLOSE, RESET, Request, Step


class SoakService(LocalService):
    """See the first lines."""

    def __init__(self) -> None:
        super().__init__()
        self._routes["break"] = self._break

    async def _break(self, request: Request, rest: str, query: Query) -> AsyncGenerator[Step, None]:
        await request.read()
        if rest == "half":
            yield b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + bytes(1000)
            await request.stream.left_within(0.02)  # so that the half is on its way before the reset overtakes it
            yield RESET
        if rest == "garbage":
            yield b"this is no answer\r\n\r\n"
        yield CLOSE


class ServiceProcess(Child):
    """The process; `port` and `ws_port` once it has started."""

    def __init__(self) -> None:
        super().__init__([sys.executable, "-m", "tests.soak.service"], name="local service", env=KEEP_MEMORY)
        self.port = self.ws_port = 0

    async def start(self) -> None:
        await super().start()
        listening = await self.wait_event("listening")
        self.port, self.ws_port = int(listening["port"]), int(listening["ws"])


async def _main() -> None:
    async with SoakService() as local, websockets_echo(deflate=False) as ws:
        say(event="listening", port=local.port, ws=ws)
        await (await stdin_lines()).read()
        await asyncio.sleep(0)


if __name__ == "__main__":
    run_loop(_main())
