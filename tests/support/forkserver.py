"""Processes of the product without the price of its imports: forked from one that has made them, and nothing else.

A start of the relay costs 2 s of a processor, nearly all for imports, and tests start hundreds. So each process of
tests keeps a server (`python -m tests.support.forkserver FD`) that imports the product once, runs none of it, and forks
on demand. What it forks is a process like any other: its own arguments, environment, session and descriptors, and a
child of whoever asked (a subreaper), which waits for it. Linux only; elsewhere, and where an environment matters from
the very first instruction on, processes are started as users do it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import io
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[2]
MODULES = ("relay", "tests.support.asgi_relay")
"""What is started so."""
PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36
_MOST_MESSAGE = 1024 * 1024
_USUAL = {"PYTHONPATH", "PYTHONUNBUFFERED"}


def can_start(argv: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether this may be started so."""
    early = [name for name in env if name.startswith(("MALLOC_", "PYTHON", "LD_")) and name not in _USUAL]
    return (
        sys.platform == "linux"
        and tuple(argv[:2]) == (sys.executable, "-m")
        and argv[2] in MODULES
        and all(env[name] == os.environ.get(name) for name in early)
    )


# ---- who asks


class Forked:
    """A process that was forked on demand; what `asyncio.subprocess.Process` has, as far as tests use it."""

    def __init__(self, pid: int, stdin: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdout: asyncio.StreamReader
        self.stderr: asyncio.StreamReader
        self._stdin = stdin
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self.stdin: asyncio.StreamWriter | None = None  # held open, and written to by nobody
        self._pidfd = os.pidfd_open(pid)
        self._loop.add_reader(self._pidfd, self._on_end)

    async def wait(self) -> int:
        """Its exit code, negative for a signal."""
        await self._over.wait()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def _on_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        os.close(self._stdin)
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._over.set()


@dataclass(frozen=True, slots=True)
class Start:
    """What to start. `pass_fds`: descriptors that it inherits under the same numbers."""

    argv: Sequence[str]
    env: Mapping[str, str]
    pass_fds: Sequence[int] = ()
    limit: int = 65536
    """Bytes of a line of its output."""


async def fork(start: Start) -> Forked:
    """Starts a process."""
    ours, theirs = _pipes()
    try:
        pid = _server().ask(start, [*theirs, *start.pass_fds])
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    found = Forked(pid, ours[0])
    found.stdout = await _reader(ours[1], start.limit)
    found.stderr = await _reader(ours[2], start.limit)
    return found


def _pipes() -> tuple[list[int], list[int]]:
    (stdin, we_write), (we_read, stdout), (we_hear, stderr) = os.pipe(), os.pipe(), os.pipe()
    return [we_write, we_read, we_hear], [stdin, stdout, stderr]


async def _reader(descriptor: int, limit: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit)
    file = os.fdopen(descriptor, "rb", 0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    return reader


class _Server:
    """The end of whoever asks."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.forkserver", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def ask(self, start: Start, descriptors: Sequence[int]) -> int:
        """The process that it forked."""
        told = json.dumps({"argv": list(start.argv[2:]), "env": dict(start.env), "pass": list(start.pass_fds)})
        _adopts_orphans(True)
        try:
            socket.send_fds(self._socket, [told.encode()], list(descriptors))
            answer = self._socket.recv(64)
        finally:
            _adopts_orphans(False)
        if not answer:
            raise RuntimeError(f"the fork server ended with code {self._process.wait()}")
        return int(answer)

    def close(self) -> None:
        """Ends it."""
        self._socket.close()
        self._process.wait(10.0)


_servers: dict[int, _Server] = {}


def _server() -> _Server:
    """Of this process, not of one that it was forked from."""
    if os.getpid() not in _servers:
        _servers[os.getpid()] = _Server()
    return _servers[os.getpid()]


def close() -> None:
    """Ends the server of this process, if it has one."""
    server = _servers.pop(os.getpid(), None)
    if server is not None:
        server.close()


# ---- the server


def serve(descriptor: int) -> None:
    """Forks on demand until nobody is there any more who could ask."""
    _die_with_parent()
    _import_all()
    with socket.socket(fileno=descriptor) as asked:
        while True:
            told, fds, _, _ = socket.recv_fds(asked, _MOST_MESSAGE, 64)
            if not told:
                return
            read, write = os.pipe()
            middle = os.fork()
            if middle == 0:
                _fork_away(asked, write, json.loads(told), fds)
            os.close(write)
            for one in fds:
                os.close(one)
            os.waitpid(middle, 0)  # from here on the one in question is a child of whoever asked
            asked.send(os.read(read, 32))
            os.close(read)


def _import_all() -> None:
    import gc

    import alembic.command
    import asyncpg
    import prometheus_client
    import rich.console
    import sqlalchemy.dialects.sqlite.aiosqlite
    import uvicorn

    import relay.agent
    import relay.cli
    import relay.cli.client
    import relay.node.serve
    import relay.registry.migrate

    relay.cli.app()  # all commands
    assert all((alembic, asyncpg, prometheus_client, rich, sqlalchemy, uvicorn, relay))
    gc.collect()
    gc.freeze()


def _fork_away(asked: socket.socket, write: int, told: dict[str, object], fds: list[int]) -> NoReturn:
    """In a process between the server and the one in question, which loses its parent by that."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.write(write, str(pid).encode())
        os._exit(0)
    code = 70
    try:
        asked.close()
        os.close(write)
        while os.getppid() == parent:
            time.sleep(0.0005)
        _become(told, fds)
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(code)


def _become(told: dict[str, object], fds: list[int]) -> None:
    """Session, descriptors, environment and arguments of a new process."""
    os.setsid()
    _die_with_parent()
    argv, env, kept = told["argv"], told["env"], told["pass"]
    assert isinstance(argv, list)
    assert isinstance(env, dict)
    assert isinstance(kept, list)
    wanted = [0, 1, 2, *kept]
    most = max([*wanted, *fds]) + 1
    # First out of each other's way: a descriptor that came may have the number that another one is to have.
    moved = [os.dup2(one, most + number, inheritable=False) for number, one in enumerate(fds)]
    for one in fds:
        os.close(one)
    for one, number in zip(moved, wanted, strict=True):
        os.dup2(one, number)
        os.close(one)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [str(one) for one in argv]
    ctypes.CDLL(None).prctl(PR_SET_NAME, " ".join(sys.argv[:2]).encode()[:15])  # `relay serve`
    for number, name in ((1, "stdout"), (2, "stderr")):
        text = io.TextIOWrapper(io.FileIO(number, "w", closefd=False), "utf-8", "backslashreplace", write_through=True)
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, "r", closefd=False)), "utf-8")


def _adopts_orphans(wanted: bool) -> None:
    """For as long as one is to be adopted: others that lose their parent meanwhile are none of this process's."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(wanted))


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
