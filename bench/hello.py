"""What an ASGI server costs by itself: `python -m bench.hello PORT`, uvicorn with the smallest application."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

BODY = b"x" * 128
_START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"128")]}
_BODY = {"type": "http.response.body", "body": BODY}


async def app(scope: dict[str, Any], receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """128 bytes to everybody."""
    assert scope["type"] == "http"
    await send(_START)
    await send(_BODY)


def main() -> None:
    """Entry of `python -m bench.hello`."""
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        backlog=4096,
    )


if __name__ == "__main__":
    main()
