"""The command line of the scripted clients: which script against which address; each transcript is one JSON line.

    python sdk2.py SCRIPT http://127.0.0.1:PORT [SILENCE]
    python sdk2.py                                          (as many such lines as there are on standard input)

Importing an SDK takes longer than a script, so one process plays many, each on an event loop of its own. SILENCE is in
seconds. Prints {"event": "transcript", "steps": …} or {"event": "failed", "trace": …}; ends with 1 if the last failed.
"""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from typing import Any

import anyio
from modern import negotiated
from scenario import Run

LIMIT = 60.0  # seconds for a whole script, beside its silence


async def play(sdk: Any, script: str, base: str, silence: float) -> list[dict[str, Any]]:
    """Run one script; returns its transcript."""
    run = Run(sdk, base.rstrip("/"), "/sse" if script == "older" else "/mcp")
    with anyio.fail_after(LIMIT + silence):
        if script == "sessions":
            await run.sessions(silence)
        elif script == "negotiated":
            await negotiated(run, silence)
        else:
            await getattr(run, script)()
    return run.log.steps_hidden()


def played(sdk: Any, words: list[str]) -> bool:
    """Run what the words ask for and print what came of it; returns whether it succeeded."""
    script, base, *rest = words
    try:
        steps = anyio.run(play, sdk, script, base, float(rest[0]) if rest else 0.0)
    except Exception:
        print(json.dumps({"event": "failed", "trace": traceback.format_exc()}), flush=True)
        return False
    print(json.dumps({"event": "transcript", "steps": steps}), flush=True)
    return True


def main(sdk: Any) -> None:
    """Play what the arguments say, or each line of standard input."""
    warnings.simplefilter("ignore")
    asked = [sys.argv[1:]] if len(sys.argv) > 1 else (line.split() for line in sys.stdin)
    good = True
    for words in asked:
        good = played(sdk, words)
    sys.exit(0 if good else 1)
