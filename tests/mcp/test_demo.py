"""`make demo`: prints each step and the answer, ends everything that it started, fails in a sentence."""

from __future__ import annotations

import signal
import sys

import psutil
import pytest

from tests.mcp.peers import START_DEADLINE, interpreter
from tests.support.child import ROOT, Child, eventually
from tests.support.longer import CHAOS

DEADLINE = 60.0  # seconds


def demo(*flags: str, sdk: str | None = None) -> Child:
    """The demo on a free port, with this interpreter for the SDK."""
    argv = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--port", "0", *flags]
    return Child(argv, name="demo", env={"MCP2_PYTHON": sdk or interpreter(2)})


async def test_once() -> None:
    """With --once it calls the tools through the public address, prints the answers, and ends with 0."""
    async with demo("--once") as child:
        assert await child.wait(DEADLINE) == 0, child.report()
        said = "\n".join(child.lines)
        assert "Tunnel established:" in said
        assert "add(19, 23) → 42" in said
        assert "(progress on the way: 1 2 3 4 5)" in said
        assert "http://mcp-demo.tunnels.localhost:" in child.lines[-1]
        assert child.stderr == ""


async def test_stays_up_until_it_is_told_to_end() -> None:
    """Without --once it stays up; Ctrl-C ends it and every process that it started, with 0."""
    async with demo() as child:
        await eventually(lambda: "Ctrl-C ends the demo." in child.lines, START_DEADLINE)
        started = psutil.Process(child.pid).children(recursive=True)
        assert len(started) >= 3
        child.signal(signal.SIGINT)
        assert await child.wait(DEADLINE) == 0, child.report()
        assert psutil.wait_procs(started, timeout=3)[1] == []


@pytest.mark.chaos
@pytest.mark.skipif(not CHAOS, reason="in `make chaos`: its end by Ctrl-C is shown above")
async def test_a_process_that_ends_is_told() -> None:
    """When one of the processes dies, the demo says which, ends the others, and exits with 1."""
    async with demo() as child:
        await eventually(lambda: "Ctrl-C ends the demo." in child.lines, START_DEADLINE)
        started = psutil.Process(child.pid).children(recursive=True)
        next(one for one in started if "demo_server.py" in " ".join(one.cmdline())).kill()
        assert await child.wait(DEADLINE) == 1
        assert "The demo failed. The MCP server ended with exit code -9." in child.stderr
        assert psutil.wait_procs(started, timeout=3)[1] == []


async def test_a_failure_is_a_sentence() -> None:
    """Without the SDK's environment it says how to make it; with a broken one it shows what the process said last."""
    async with demo("--once", sdk="/nowhere/python") as child:
        assert await child.wait(DEADLINE) == 1
        assert "The demo failed. There is no MCP SDK at /nowhere/python: run `make demo`" in child.stderr
    async with demo("--once", sdk=sys.executable) as child:
        assert await child.wait(DEADLINE) == 1
        assert "The demo failed. The MCP server ended with exit code 1." in child.stderr
        assert "ModuleNotFoundError" in child.stderr
        assert "demo.py" not in child.stderr
