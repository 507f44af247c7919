"""`make demo`: a relay, a sample MCP server, an agent and an MCP client on this machine, each step printed.

    demo.py [--once] [--port N]

Stays up until Ctrl-C; with --once it ends after the call, with 0 if the answer was right and 1 otherwise. Starts
everything as processes and ends them all; needs the standard library, this interpreter's `relay`, and .venvs/mcp2 for
the official MCP SDK (MCP2_PYTHON names another interpreter).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parent
DOMAIN = "tunnels.localhost"
NAME = "mcp-demo"
USUAL_PORT = 8080
START = 30.0  # seconds for a process to be of use; the first import on a cold disk is slow
CALL = 60.0  # seconds for the client
STOP = 5.0  # seconds for a process to end by itself
STDERR_LINES = 8

Event = dict[str, Any]


class DemoError(Exception):
    """Why the demo failed, as a sentence, perhaps with what a process said last."""


class Child:
    """A process that prints one JSON event a line."""

    def __init__(self, name: str, argv: list[str]) -> None:
        self.name = name
        self.events: queue.Queue[Event | None] = queue.Queue()
        self._stderr: deque[str] = deque(maxlen=STDERR_LINES)
        try:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                cwd=ROOT,
                env=environment(),
                start_new_session=True,  # Ctrl-C is ours to pass on, in order
            )
        except OSError as error:
            raise DemoError(f"The {name} could not be started: {error}.") from None
        self._readers = [threading.Thread(target=reader, daemon=True) for reader in (self._read_out, self._read_err)]
        for thread in self._readers:
            thread.start()

    def _read_out(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    self.events.put(event)
        self.events.put(None)

    def _read_err(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._stderr.append(line.rstrip())

    def fail(self, sentence: str) -> NoReturn:
        """Raise DemoError with this sentence and the last lines that the process wrote on stderr."""
        self._readers[1].join(timeout=0.5)
        said = "\n".join(f"    {line}" for line in self._stderr if line)
        raise DemoError(f"{sentence}\n  The {self.name} said last:\n{said}" if said else sentence)

    def next_event(self, deadline: float) -> Event:
        """Its next event; raises DemoError when the process ends or the time (monotonic seconds) is up."""
        try:
            event = self.events.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            self.fail(f"The {self.name} did not answer in time.")
        if event is None:
            code = self.process.wait()
            self.fail(f"The {self.name} ended with exit code {code}.")
        return event

    def wait_for(self, kind: str, seconds: float) -> Event:
        """The first event of this kind."""
        deadline = time.monotonic() + seconds
        while (event := self.next_event(deadline)).get("event") != kind:
            if event.get("event") == "refused":
                self.fail(f"The {self.name} was refused: {event.get('message', event)}")
        return event

    def end(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def environment() -> dict[str, str]:
    """Ours, without settings for another relay and without proxies: everything here is on this machine."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RELAY_", "MTK_")) and not name.lower().endswith("_proxy")
    }
    return kept | {"PYTHONUNBUFFERED": "1"}


@contextlib.contextmanager
def child(name: str, *argv: str) -> Iterator[Child]:
    """A process that ends with the block."""
    started = Child(name, list(argv))
    try:
        yield started
    finally:
        started.end()


def sdk_python() -> str:
    """The interpreter that has the official MCP SDK."""
    path = os.environ.get("MCP2_PYTHON", str(ROOT / ".venvs" / "mcp2" / "bin" / "python"))
    if not Path(path).exists():
        raise DemoError(f"There is no MCP SDK at {path}: run `make demo`, which sets it up, or scripts/sdk-envs mcp2.")
    return path


def usual_port() -> int:
    """8080 if nothing listens there, else 0 for any free port."""
    try:
        with socket.create_server(("127.0.0.1", USUAL_PORT)):
            return USUAL_PORT
    except OSError:
        return 0


def step(number: int, what: str, *lines: str) -> None:
    """Print one step."""
    print(f"{number}. {what}", *(f"   {line}" for line in lines), sep="\n", flush=True)


def call_tools(url: str) -> None:
    """Let the official client call both tools; raises DemoError unless the answers are right."""
    answers = {}
    with child("MCP client", sdk_python(), str(SCRIPTS / "demo_client.py"), url) as client:
        deadline = time.monotonic() + CALL
        while (event := client.next_event(deadline))["event"] != "done":
            if event["event"] == "connected":
                tools = ", ".join(event["tools"])
                step(4, f"The MCP client connected to {url}", f"protocol {event['protocol']}, tools: {tools}")
            else:
                answers[event["call"]] = event["answer"]
                came = f" (progress on the way: {' '.join(event['progress'])})" if event.get("progress") else ""
                print(f"   {event['call']} → {event['answer']}{came}", flush=True)
    if answers != {"add(19, 23)": "42", "count(5)": "counted to 5"}:
        raise DemoError(f"The answers are wrong: {answers}.")


def stay(children: list[Child], agent: Child) -> NoReturn:
    """Print what passes the tunnel until Ctrl-C; raises DemoError if a process ends."""
    while True:
        for one in children:
            if one.process.poll() is not None:
                one.fail(f"The {one.name} ended with exit code {one.process.returncode}.")
        with contextlib.suppress(queue.Empty):
            event = agent.events.get(timeout=0.5)
            if event is not None and event.get("event") == "request":
                print(f"   {event.get('method')} {event.get('path')} → {event.get('status')}", flush=True)


def run(once: bool, port: int) -> None:
    """The demo, step by step; raises DemoError."""
    python = sdk_python()
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-demo-"))
        listen = ["--public", f"127.0.0.1:{port}", "--agents", "127.0.0.1:0", "--data", data]
        serve = [sys.executable, "-m", "relay", "serve", "--json", "--domain", DOMAIN, *listen]
        relay = stack.enter_context(child("relay", *serve))
        serving = relay.wait_for("serving", START)
        step(1, f"The relay serves visitors on {serving['public']} and agents on {serving['agents']}")

        server = stack.enter_context(child("MCP server", python, str(SCRIPTS / "demo_server.py")))
        local = server.wait_for("serving", START)
        step(2, f"A sample MCP server (official SDK {local['sdk']}) runs at http://127.0.0.1:{local['port']}/mcp")

        where = ["--relay", f"ws://{serving['agents']}", "--key-file", serving["key_file"]]
        tunnel = [sys.executable, "-m", "relay", "http", str(local["port"]), "--subdomain", NAME, "--json", *where]
        agent = stack.enter_context(child("agent", *tunnel))
        established = agent.wait_for("established", START)
        url = f"http://{NAME}.{DOMAIN}:{serving['public'].rpartition(':')[2]}/mcp"
        step(3, "Tunnel established:", f"{established['url']} → {established['target']}")

        call_tools(url)
        print(f"\nIt works. The MCP server is reachable at {url}", flush=True)
        if not once:
            print("Ctrl-C ends the demo.", flush=True)
            stay([relay, server, agent], agent)


def main() -> int:
    """Exit code 0 after a good call or Ctrl-C, 1 after a failure."""
    parser = argparse.ArgumentParser(description="A relay, an MCP server, an agent and a client on this machine.")
    parser.add_argument("--once", action="store_true", help="end after the call; the exit code tells")
    parser.add_argument("--port", type=int, help=f"visitors' port, 0 for any (default: {USUAL_PORT} if it is free)")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, children first
    try:
        run(given.once, usual_port() if given.port is None else given.port)
    except KeyboardInterrupt:
        print("\nThe demo has ended.", flush=True)
        return 1 if given.once else 0
    except DemoError as error:
        print(f"The demo failed. {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
