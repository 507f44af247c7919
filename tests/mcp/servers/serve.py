"""The command line and the socket of the sample MCP servers: flags in, one JSON line with the port out, then serve.

    python sdk1.py [--stateless | --sse] [--allow-host H] [--oauth] [--origin[-from] O]

Binds 127.0.0.1 on a free port before the application is built, because the address is part of what is configured
(allowed hosts, OAuth metadata). Knows neither SDK generation; `sdk1.py` and `sdk2.py` pass a builder.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from oauth import Readdressed
from watch import GetStreams, Watch

RETRY = 50  # milliseconds after which a client resumes a closed stream


@dataclass
class Setup:
    """Everything a builder needs to know."""

    local: str
    stateless: bool
    sse: bool
    hosts: list[str]
    origins: list[str]
    oauth: bool
    issuer: str
    streams: GetStreams = field(default_factory=GetStreams)


def arguments() -> argparse.Namespace:
    """The flags, which are the same for both generations."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--stateless", action="store_true", help="no sessions, JSON answers")
    parser.add_argument("--sse", action="store_true", help="the older HTTP+SSE transport at /sse")
    parser.add_argument("--allow-host", action="append", default=[], help="one more allowed Host")
    parser.add_argument("--oauth", action="store_true", help="require a token, be the authorization server")
    parser.add_argument("--origin", help="the origin named in OAuth metadata (default: the local one)")
    parser.add_argument("--origin-from", choices=["forwarded", "host"], help="take that origin from each request")
    return parser.parse_args()


def end_with_parent() -> None:
    """End when standard input does: a test that was killed leaves no server behind."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def main(build: Callable[[Setup], Any]) -> None:
    """Serve the application that `build` makes until SIGTERM."""
    warnings.simplefilter("ignore")
    given = arguments()
    listener = socket.create_server(("127.0.0.1", given.port), backlog=128)
    host = f"127.0.0.1:{listener.getsockname()[1]}"
    local = f"http://{host}"
    setup = Setup(
        local=local,
        stateless=given.stateless,
        sse=given.sse,
        hosts=[host, *given.allow_host],
        origins=[local, *(f"http://{name}" for name in given.allow_host)],
        oauth=given.oauth,
        issuer=given.origin or local,
    )
    app = build(setup)
    if given.origin_from:
        app = Readdressed(app, local, given.origin_from)
    config = uvicorn.Config(Watch(app, setup.streams), log_level="warning", timeout_graceful_shutdown=1, lifespan="on")
    print(json.dumps({"event": "serving", "port": listener.getsockname()[1]}), flush=True)
    end_with_parent()
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))
