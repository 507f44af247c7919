"""Counts the calls that happen while a script runs: Python functions of ours, and built-in ones that they call.

Each call belongs to the side, relay or agent, in whose context it runs; what runs in neither is not counted. The bodies
of comprehensions are not counted as calls: newer Pythons make none of them.
"""

from __future__ import annotations

import contextvars
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

OURS = "relay."
SIDES = ("relay", "agent")
side: contextvars.ContextVar[str] = contextvars.ContextVar("side", default="")
_BODIES = ("<listcomp>", "<dictcomp>", "<setcomp>")


@dataclass(slots=True)
class Count:
    """Calls by (side, function), and built-in calls by (side, function that makes them)."""

    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    builtins: Counter[tuple[str, str]] = field(default_factory=Counter)

    def total(self, counter: Counter[tuple[str, str]], which: str) -> int:
        """All of one side."""
        return sum(number for (one, _name), number in counter.items() if one == which)


def context_of(which: str) -> contextvars.Context:
    """A context in which everything, with what it schedules, counts for this side."""
    context = contextvars.copy_context()
    context.run(side.set, which)
    return context


@contextmanager
def counting() -> Iterator[Count]:
    """Counts within the block."""
    count = Count()
    calls, builtins = count.calls, count.builtins

    def profile(frame: FrameType, event: str, _argument: Any) -> None:  # noqa: ANN401
        if event != "call" and event != "c_call":
            return
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(OURS):
            return
        which = side.get()
        if not which:
            return
        code = frame.f_code
        if event == "c_call":
            builtins[which, f"{module}:{code.co_qualname}"] += 1
        elif code.co_name not in _BODIES:
            calls[which, f"{module}:{code.co_qualname}"] += 1

    sys.setprofile(profile)
    try:
        yield count
    finally:
        sys.setprofile(None)
