"""One large transfer in a process of its own, so that it does not delay what the test itself measures beside it.

`async with Bulk("down", port, host, window) as bulk: began, rate = await bulk.rate()`; the process prints one event.
"""

from __future__ import annotations

import json
import sys
from typing import Literal

from tests.support.child import KEEP_MEMORY, Child
from tests.support.faultprocess import run_loop, say
from tests.support.transfer import download, upload

Way = Literal["down", "up"]
Window = tuple[float, float]
ENDLESS = 2**40


class Bulk(Child):
    """A download or upload of the pattern, left after the window; both of its times are seconds since its start."""

    def __init__(self, way: Way, port: int, host: str, window: Window) -> None:
        argv = [sys.executable, "-m", "tests.system.bulk", way, str(port), host, json.dumps(window)]
        super().__init__(argv, name="bulk", env=KEEP_MEMORY)
        self._within = window[1] + 30.0

    async def rate(self) -> tuple[float, float]:
        """(monotonic time at its start, bytes per second within the window at their reader); raises ChildError."""
        told = await self.wait_event("rate", self._within)
        assert told["intact"]
        return told["began"], told["rate"]


async def _run(way: str, port: int, host: str, window: Window) -> None:
    if way == "down":
        transfer = await download(port, f"/bytes/{ENDLESS}", host=host, seconds=window[1])
        samples, intact = transfer.meter.samples, transfer.meter.intact
    else:
        transfer = await upload(port, "/sink?hash=none", None, host=host, seconds=window[1])
        samples, intact = transfer.answer["samples"], transfer.answer["intact"]
    inside = [(at, size) for at, size in samples if window[0] <= at <= window[1]]
    rate = (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])
    say(event="rate", rate=rate, began=transfer.meter.started, intact=intact)


if __name__ == "__main__":
    run_loop(_run(sys.argv[1], int(sys.argv[2]), sys.argv[3], tuple(json.loads(sys.argv[4]))))
