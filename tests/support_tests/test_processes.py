"""Processes of tests: their events, their costs, their certain end, with a stand-in for the product."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.child import Child, ChildError, eventually
from tests.support.faultprocess import FaultProcess
from tests.support.processes import AgentProcess, RelayProcess, tunnel

STAND_IN = """
import json, os, signal, socket, sys, pathlib
def option(name): return sys.argv[sys.argv.index(name) + 1]
def say(**event): print(json.dumps(event), flush=True)
print("noise before the first event")
print("a word on stderr", file=sys.stderr, flush=True)
if sys.argv[1] == "serve":
    said, sockets = {}, []
    for name in ("public", "agents", "internal"):
        host, port = option("--" + name).split(":")
        sockets.append(socket.create_server((host, int(port))))
        said[name] = "%s:%d" % sockets[-1].getsockname()
    data = pathlib.Path(option("--data"))
    (data / "operator.key").write_text("mtk_operator_0_0")
    (data / "child.key").write_text("key")
    say(event="serving", domain=option("--domain"), key_file=str(data / "operator.key"), **said)
else:
    assert open(option("--key-file")).read() == "key"
    host, port = option("--relay").removeprefix("ws://").split(":")
    socket.create_connection((host, int(port)))
    if "--refuse" in sys.argv: sys.exit(3)
    say(event="established", target=sys.argv[2], subdomain=option("--subdomain"))
if "--deaf" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
else: signal.signal(signal.SIGTERM, lambda *_: (say(event="stopped"), sys.exit(0)))
say(event="ready", argv=sys.argv[1:], environment=sorted(os.environ))
while True: signal.pause()
"""


@pytest.fixture(autouse=True)
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the stand-in in place of the product."""
    program = tmp_path / "stand_in.py"
    program.write_text(STAND_IN)
    monkeypatch.setattr(processes, "fill", lambda data: None)
    monkeypatch.setattr(processes, "RELAY", (sys.executable, str(program)))
    monkeypatch.setitem(processes.SERVE, "protocol", (sys.executable, str(program), "serve"))


def gone(pid: int) -> bool:
    """Whether no process has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_a_tunnel_starts_both_and_ends_both() -> None:
    """Ports, host and events are there inside; nothing is left after, not even the data directory."""
    async with tunnel(4321, "sub", ["--hold", "1"], ["--links", "1"]) as t:
        assert t.port > 0
        assert (t.host, t.url) == ("sub.tunnels.localhost", f"http://sub.tunnels.localhost:{t.port}")
        assert t.agent.events[0] == {"event": "established", "target": "4321", "subdomain": "sub"}
        assert t.relay.key_file.read_text() == "key"
        ready = await t.relay.wait_event("ready")
        assert ready["argv"][-2:] == ["--hold", "1"]
        assert (await t.agent.wait_event("ready"))["argv"][-2:] == ["--links", "1"]
        pids, data = [t.relay.pid, t.agent.pid], t.relay.data
    assert all(gone(pid) for pid in pids)
    assert not data.exists()


async def test_a_tunnel_puts_its_fault_proxy_between() -> None:
    """The agent is given the proxy's port, and the proxy that of the relay."""
    async with tunnel(1, proxy=lambda port: FaultProcess(port, delay=0.01)) as t:
        ready = await t.agent.wait_event("ready")
        assert f"ws://127.0.0.1:{t.proxy.port}" in ready["argv"]
        assert (await t.proxy.stats()).connections == 1


async def test_stop_gives_the_exit_code_and_signals_are_told() -> None:
    """SIGTERM ends with the process's own code, SIGKILL with minus nine."""
    async with RelayProcess() as relay:
        await relay.wait_event("ready")
        assert await relay.stop() == 0
        assert relay.events[-1] == {"event": "stopped"}
    async with RelayProcess() as relay:
        assert await relay.kill() == -signal.SIGKILL


async def test_a_process_that_does_not_stop_is_killed_and_told() -> None:
    """A missed deadline is an error that shows stderr, and the process is gone."""
    async with RelayProcess(args=["--deaf"]) as relay:
        await relay.wait_event("ready")
        with pytest.raises(ChildError, match="a word on stderr"):
            await relay.stop(timeout=0.2)
        assert gone(relay.pid)


async def test_an_agent_that_ends_early_is_told_at_once(tmp_path: Path) -> None:
    """Waiting for an event of a process that ended raises with its exit code and stderr, long before the deadline."""
    async with RelayProcess() as relay:
        agent = AgentProcess(1, relay_port=relay.agents_port, key_file=relay.key_file, args=["--refuse"])
        async with agent:
            with pytest.raises(ChildError, match=r"exit code 3[\s\S]*a word on stderr"):
                await asyncio.wait_for(agent.established(), 10)


async def test_a_missing_event_is_an_error_after_its_deadline() -> None:
    """The deadline of wait_event holds, and the error names the event."""
    async with RelayProcess() as relay:
        with pytest.raises(ChildError, match="no event never"):
            await relay.wait_event("never", timeout=0.05)


async def test_costs_are_read() -> None:
    """Memory, time and descriptors of a process are plausible."""
    async with RelayProcess() as relay:
        await relay.wait_event("ready")
        relay.reset_peak()
        assert 2**20 < relay.rss() <= relay.peak_rss() < 2**30
        assert 0 <= relay.cpu_seconds() < 60
        assert relay.fds() >= 6


async def test_the_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the product and no proxy leaks from the tester's shell."""
    monkeypatch.setenv("RELAY_DOMAIN", "elsewhere")
    monkeypatch.setenv("HTTPS_PROXY", "http://elsewhere")
    async with RelayProcess(env={"RELAY_HOLD": "1"}) as relay:
        environment = (await relay.wait_event("ready"))["environment"]
    assert "RELAY_HOLD" in environment
    assert not {"RELAY_DOMAIN", "HTTPS_PROXY"} & set(environment)


async def test_a_cancelled_test_leaves_no_process() -> None:
    """Cancelling the task that holds processes ends them."""
    held: list[Child] = []

    async def hold() -> None:
        async with tunnel(1) as t:
            held.extend([t.relay, t.agent])
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await eventually(lambda: len(held) == 2, timeout=15)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert all(gone(child.pid) for child in held)


async def test_a_process_dies_with_the_one_that_started_it(tmp_path: Path) -> None:
    """When the tester is killed, the kernel kills what it started."""
    program = (
        "import asyncio, sys\n"
        "from tests.support.child import Child\n"
        "async def main():\n"
        "    inner = Child([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        "    await inner.start()\n"
        '    print(\'{"event": "started", "pid": %d}\' % inner.pid, flush=True)\n'
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    async with Child([sys.executable, "-c", program], name="tester") as tester:
        inner = (await tester.wait_event("started"))["pid"]
        tester.signal(signal.SIGKILL)
        await tester.wait()
    await eventually(lambda: gone(inner) or _zombie(inner))


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
