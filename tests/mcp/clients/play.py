"""The command line of the scripted clients: which script against which address; prints the transcript as one JSON line.

    python sdk2.py SCRIPT http://127.0.0.1:PORT [--idle SECONDS]

Ends with 0 and the transcript, or with a traceback and 1.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import anyio
from modern import negotiated
from scenario import Run

SCRIPTS = ["sessions", "stateless", "older", "authorised", "negotiated"]
LIMIT = 120.0  # seconds for a whole script, beside its idle time


async def play(sdk: Any, script: str, base: str, idle: float) -> str:
    """Run one script; returns its transcript."""
    run = Run(sdk, base.rstrip("/"), "/sse" if script == "older" else "/mcp")
    with anyio.fail_after(LIMIT + 3 * idle):
        if script == "sessions":
            await run.sessions(idle)
        elif script == "negotiated":
            await negotiated(run, idle)
        else:
            await getattr(run, script)()
    return run.log.dump()


def main(sdk: Any) -> None:
    """Read the arguments, run, print."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("script", choices=SCRIPTS)
    parser.add_argument("base", help="scheme, host and port of the server or the tunnel")
    parser.add_argument("--idle", type=float, default=0.0, help="seconds that streams stay silent")
    given = parser.parse_args()
    print(anyio.run(play, sdk, given.script, given.base, given.idle))
