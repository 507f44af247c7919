"""The fault proxy as its own process: the command line of `python -m tests.support.faults`, and its wrapper.

The process prints `{"event": "listening", "port": N}`, then reads one JSON command a line on stdin
(`{"id": 1, "do": "cut", "how": "rst", "pair": null}`) and answers each on stdout; it ends when stdin does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Unpack

from tests.support.child import KEEP_MEMORY, Child
from tests.support.faultcontrols import FaultControls, Settings

ANSWER_DEADLINE = 10.0


class FaultProcess(Child, FaultControls):
    """A `FaultProxy` in its own process: `async with FaultProcess(port, delay=0.05) as proxy: proxy.port`."""

    def __init__(
        self,
        upstream_port: int,
        *,
        upstream_host: str = "127.0.0.1",
        seed: int = 1,
        socket_buffer: int | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        argv = [sys.executable, "-m", "tests.support.faults", "--upstream", f"{upstream_host}:{upstream_port}"]
        argv += ["--seed", str(seed)]
        if socket_buffer is not None:
            argv += ["--socket-buffer", str(socket_buffer)]
        for name, value in settings.items():
            argv += [f"--{name}", str(value)]
        super().__init__(argv, name="fault proxy", env=KEEP_MEMORY)
        self._numbers = itertools.count(1)

    async def start(self) -> None:
        await super().start()
        self.port = int((await self.wait_event("listening"))["port"])

    async def _do(self, command: str, arguments: dict[str, Any]) -> Any:
        number = next(self._numbers)
        seen = len(self.events)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"id": number, "do": command} | arguments).encode() + b"\n")
        await self.process.stdin.drain()
        answer = await self.wait_event(lambda event: event.get("id") == number, ANSWER_DEADLINE, after=seen)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["result"]


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where it is installed, on asyncio elsewhere."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner, contextlib.suppress(KeyboardInterrupt):
        runner.run(main)


def say(**event: Any) -> None:
    """One JSON event on stdout."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


async def stdin_lines() -> asyncio.StreamReader:
    """Stdin as a stream."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.support.faults", description="A seeded TCP fault proxy.")
    parser.add_argument("--upstream", required=True, metavar="HOST:PORT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--socket-buffer", type=int, metavar="BYTES", help="receive buffer of each socket")
    parser.add_argument("--delay", type=float, metavar="SECONDS", help="one way, each direction")
    parser.add_argument("--jitter", type=float, metavar="SECONDS")
    parser.add_argument("--rate", type=float, metavar="BYTES_PER_SECOND")
    parser.add_argument("--dribble", type=int, metavar="BYTES")
    parser.add_argument("--capacity", type=int, metavar="BYTES")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    from tests.support.faults import FaultProxy

    host, _, port = arguments.upstream.rpartition(":")
    names = Settings.__annotations__
    settings: Settings = {n: v for n in names if (v := getattr(arguments, n)) is not None}  # type: ignore[assignment]
    proxy = FaultProxy(
        int(port), upstream_host=host, seed=arguments.seed, socket_buffer=arguments.socket_buffer, **settings
    )
    async with proxy:
        say(event="listening", port=proxy.port)
        async for line in await stdin_lines():
            command = {}
            try:
                command = json.loads(line)
                rest = {name: value for name, value in command.items() if name not in ("id", "do")}
                say(id=command.get("id"), result=await proxy._do(command["do"], rest))
            except (ValueError, TypeError, KeyError) as error:
                say(id=command.get("id"), error=f"{type(error).__name__}: {error}")


def main() -> None:
    """Entry of `python -m tests.support.faults`."""
    run_loop(_serve(_arguments()))
