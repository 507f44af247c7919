"""A process that a test started: its events, what it said on stderr, what it costs, and its certain end.

This room alone starts and ends processes. Each gets a session of its own and is killed by its id; the kernel kills it
(PR_SET_PDEATHSIG, Linux) when the process that started it dies; what is still alive at exit is killed then.
Measures (`rss` and the like) read /proc and raise FileNotFoundError where there is none.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import json
import os
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.support.forkserver import Forked, Start, can_start, fork

ROOT = Path(__file__).parents[2]
STDERR_LINES = 2000
LINE_LIMIT = 16 * 2**20
PR_SET_PDEATHSIG = 1
# For our own processes that move bytes: without it glibc gives each 256 KiB back to the kernel and faults it in again.
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)}

Event = dict[str, Any]

_alive: set[int] = set()
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class ChildError(AssertionError):
    """A process did not do in time what it was started for; carries what it wrote on stderr."""


def _begin() -> None:
    """It dies with its parent, and Ctrl-C ends it, also where whoever started the tests ignores that (`nohup … &`)."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


@atexit.register
def _kill_what_is_left() -> None:
    for pid in list(_alive):
        _kill_group(pid)


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would steer the product or a proxy, and with the project importable."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RELAY_", "MTK_")) and not name.lower().endswith("_proxy")
    }
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"} | dict(extra or {})


class Child:
    """A process whose stdout is one JSON event a line; other lines are kept in `lines`."""

    stderr_lines = STDERR_LINES
    """So many of its last ones are kept."""
    pass_fds: tuple[int, ...] = ()
    """Descriptors that it inherits, under the same numbers."""
    fresh = True
    """It is started as users do it, with all its imports. Tests do without where they can (see `forkserver`)."""

    def __init__(self, argv: Sequence[str], *, name: str = "child", env: Mapping[str, str] | None = None) -> None:
        self.argv = tuple(argv)
        self.name = name
        self.events: list[Event] = []
        self.lines: list[str] = []
        self._env = clean_environment(env)
        self._process: asyncio.subprocess.Process | Forked | None = None
        self._stderr: deque[str] = deque(maxlen=self.stderr_lines)
        self._pumps: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()
        self._stdout_ended = False

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await asyncio.shield(self.kill())
            raise
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            error.add_note(self.report())
        try:
            await self.stop(timeout=5.0)
        except BaseException as trouble:
            await asyncio.shield(self.kill())
            if error is None or not isinstance(trouble, ChildError):
                raise

    async def start(self) -> None:
        """Start the process; subclasses also wait here until it is of use."""
        if not self.fresh and can_start(self.argv, self._env):
            self._attend(await fork(Start(self.argv, self._env, self.pass_fds, LINE_LIMIT)))
            return
        with warnings.catch_warnings():
            # From 3.12 on a fork with threads about warns; what runs between fork and exec here is one system call.
            warnings.simplefilter("ignore", DeprecationWarning)
            process = await asyncio.create_subprocess_exec(
                *self.argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._env,
                cwd=ROOT,
                limit=LINE_LIMIT,
                start_new_session=True,
                pass_fds=self.pass_fds,
                preexec_fn=_begin,
            )
        self._attend(process)

    def _attend(self, process: asyncio.subprocess.Process | Forked) -> None:
        self._process = process
        _alive.add(process.pid)
        assert process.stdout is not None
        assert process.stderr is not None
        self._pumps = [
            asyncio.create_task(self._pump_stdout(process.stdout)),
            asyncio.create_task(self._pump_stderr(process.stderr)),
        ]

    async def _pump_stdout(self, stdout: asyncio.StreamReader) -> None:
        async for line in stdout:
            text = line.decode(errors="replace").rstrip("\r\n")
            try:
                event = json.loads(text)
            except ValueError:
                event = None
            if isinstance(event, dict):
                self.events.append(event)
            else:
                self.lines.append(text)
            self._news.set()
        self._stdout_ended = True
        self._news.set()

    async def _pump_stderr(self, stderr: asyncio.StreamReader) -> None:
        async for line in stderr:
            self._stderr.append(line.decode(errors="replace").rstrip("\r\n"))

    @property
    def process(self) -> asyncio.subprocess.Process | Forked:
        """The process; raises ChildError before `start`."""
        if self._process is None:
            raise ChildError(f"{self.name} was not started")
        return self._process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self.process.returncode

    @property
    def stderr(self) -> str:
        """What it wrote on stderr, the last lines of it."""
        return "\n".join(self._stderr)

    def report(self) -> str:
        """For a failure: how it was started, its state, last events and stderr."""
        state = "not started" if self._process is None else f"exit code {self._process.returncode}"
        events = "\n".join(json.dumps(event) for event in self.events[-20:])
        return f"--- {self.name} ({state}): {' '.join(self.argv)}\n{events}\n--- stderr of {self.name}\n{self.stderr}"

    async def wait_event(self, wanted: str | Callable[[Event], bool], timeout: float = 10.0, after: int = 0) -> Event:
        """The first event, from index `after` on, that is named so or satisfies the predicate, within `timeout` s.

        Raises ChildError when time is up, or at once when the process ended without it.
        """
        predicate = wanted if callable(wanted) else lambda event: event.get("event") == wanted
        seen = after
        try:
            async with asyncio.timeout(timeout):
                while True:
                    ended = self._stdout_ended
                    while seen < len(self.events):
                        seen += 1
                        if predicate(self.events[seen - 1]):
                            return self.events[seen - 1]
                    if ended:
                        await self.process.wait()
                        raise ChildError(f"{self.name} ended without the event {wanted}\n{self.report()}")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise ChildError(f"no event {wanted} within {timeout} s\n{self.report()}") from None

    async def stop(self, timeout: float = 10.0) -> int:
        """SIGTERM, then its exit code; after `timeout` seconds it is killed and ChildError raised."""
        if self._process is None:
            return 0
        self.signal(signal.SIGTERM)
        try:
            return await self.wait(timeout)
        except TimeoutError:
            await self.kill()
            raise ChildError(f"{self.name} did not stop within {timeout} s\n{self.report()}") from None

    async def wait(self, timeout: float = 10.0) -> int:
        """Its exit code once it ends by itself, its output read to the end; raises TimeoutError after `timeout` s."""
        async with asyncio.timeout(timeout):
            code = await self.process.wait()
        _alive.discard(self.process.pid)
        _done, hanging = await asyncio.wait(self._pumps, timeout=1.0)
        for pump in hanging:  # a descendant holds the pipes
            pump.cancel()
        return code

    async def kill(self) -> int:
        """SIGKILL to it and what it started; its exit code."""
        if self._process is None:
            return 0
        if self._process.returncode is None:
            _kill_group(self._process.pid)
        return await self.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal (SIGSTOP, SIGCONT, …) if it still runs."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    # ---- what it costs -------------------------------------------------------------------------------------------

    def _status(self, field: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        raise ChildError(f"{self.name} has no {field}: it ended\n{self.report()}")

    def rss(self) -> int:
        """Resident bytes now."""
        return self._status("VmRSS")

    def peak_rss(self) -> int:
        """The most resident bytes since the start or since `reset_peak`."""
        return self._status("VmHWM")

    def reset_peak(self) -> None:
        """Count `peak_rss` from now on."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def fds(self) -> int:
        """Open descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


async def eventually(condition: Callable[[], bool], timeout: float = 5.0, every: float = 0.01) -> None:
    """Return once `condition()` holds; raises AssertionError after `timeout` seconds. For what gives no event."""
    deadline = time.monotonic() + timeout
    pause = asyncio.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come true within {timeout} s: {condition}")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(pause.wait(), every)
