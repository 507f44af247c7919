"""Counts what happens while a script runs: calls of our Python functions, built-in ones that they call, bytecodes.

Each belongs to the side, relay or agent, in whose context it runs; what runs in neither is not counted. The bodies of
comprehensions are not counted as calls: newer Pythons make none of them. Bytecodes, the steps of the interpreter, are
where the processor's time goes; how many a function has is another matter in each version of Python.
"""

from __future__ import annotations

import contextvars
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

OURS = "relay."
SIDES = ("relay", "agent")
side: contextvars.ContextVar[str] = contextvars.ContextVar("side", default="")
TraceFunction = Callable[[FrameType, str, Any], Any]
_BODIES = ("<listcomp>", "<dictcomp>", "<setcomp>")


@dataclass(slots=True)
class Count:
    """Calls and bytecodes by (side, function), and built-in calls by (side, function that makes them)."""

    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    builtins: Counter[tuple[str, str]] = field(default_factory=Counter)
    bytecodes: Counter[tuple[str, str]] = field(default_factory=Counter)

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
    sys.setprofile(_profiler(count))
    sys.settrace(_tracer(count))
    try:
        yield count
    finally:
        sys.settrace(None)
        sys.setprofile(None)


def _profiler(count: Count) -> Callable[[FrameType, str, Any], None]:
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

    return profile


def _tracer(count: Count) -> TraceFunction:
    """What is entered gets a function of its own that counts its bytecodes; it is made once for each side and code."""
    steps: dict[tuple[str, CodeType], TraceFunction] = {}

    def trace(frame: FrameType, _event: str, _argument: Any) -> TraceFunction | None:  # noqa: ANN401
        module, which, code = frame.f_globals.get("__name__", ""), side.get(), frame.f_code
        if not which or not module.startswith(OURS):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        step = steps.get((which, code))
        if step is None:
            step = steps[which, code] = _stepper(count.bytecodes, (which, f"{module}:{code.co_qualname}"))
        return step

    return trace


def _stepper(bytecodes: Counter[tuple[str, str]], name: tuple[str, str]) -> TraceFunction:
    def step(_frame: FrameType, event: str, _argument: Any) -> TraceFunction:  # noqa: ANN401
        if event == "opcode":
            bytecodes[name] += 1
        return step

    return step
