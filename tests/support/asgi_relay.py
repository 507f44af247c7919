"""A whole relay whose public listener is another ASGI server: `python -m tests.support.asgi_relay --edge NAME …`.

`--edge uvicorn` is uvicorn with h11, `--edge hypercorn` is Hypercorn; both serve the tunnel path's ASGI callable. All
other arguments are those of `relay serve --json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from hypercorn.asyncio import serve
from hypercorn.config import Config

from relay.edge.asgi import TunnelApp
from relay.node.assemble import Node
from relay.node.listeners import Listener, PublicListener
from relay.node.serve import Serving
from relay.settings import SETTINGS, load


class Hypercorn:
    """Hypercorn as a listener of a node."""

    def __init__(self, app: TunnelApp, sock: socket.socket) -> None:
        self._app = app
        self._sock = sock
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def listen(self) -> None:
        """See `PublicListener`."""
        self._sock.listen(1024)
        config = Config()
        config.bind = [f"fd://{os.dup(self._sock.fileno())}"]
        config.graceful_timeout = 1.0
        config.loglevel = "WARNING"
        self._task = asyncio.ensure_future(
            serve(self._app, config, shutdown_trigger=self._stop.wait)  # type: ignore[arg-type]
        )

    async def stop_accepting(self) -> None:
        """See `PublicListener`."""
        self.let_go()

    def let_go(self) -> None:
        """See `PublicListener`."""
        self._stop.set()

    async def arrived(self) -> None:
        """See `PublicListener`."""

    async def aclose(self) -> None:
        """See `PublicListener`."""
        self._stop.set()
        if self._task is not None:
            await self._task


EDGES: dict[str, Callable[[Node, socket.socket], PublicListener]] = {
    "uvicorn": lambda node, sock: Listener(sock, TunnelApp(node.services), "h11"),
    "hypercorn": lambda node, sock: Hypercorn(TunnelApp(node.services), sock),
}


def main() -> int:
    """Serves until a signal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--edge", choices=sorted(EDGES), required=True)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--config", type=Path)
    for one in SETTINGS:
        if one.flag:
            parser.add_argument(one.flag, dest=one.name)
    given = vars(parser.parse_args())
    edge = EDGES[given.pop("edge")]
    given.pop("json")
    settings = load(given, os.environ, given.pop("config"))

    def report(event: dict[str, object]) -> None:
        print(json.dumps(event), flush=True)  # noqa: T201

    async def run() -> int:
        return await Serving(settings, report).run(edge)

    return asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
