"""One relay for each data directory, and how the next one takes its place: by the Unix socket there.

Whoever listens on it is the relay of the directory. A successor asks, is given the listening sockets, starts on them,
says that it is ready, and is told what was alive; only then does the one before leave. The Unix socket is handed over
with the others, so that it is never gone in between.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from relay.node.controlsocket import Talk, Told, connect, listen
from relay.node.errors import StartError
from relay.node.sockets import LISTENERS, Given

CONTROL_NAME = "relay.sock"
ANSWER_WITHIN = 5.0
# From the sockets to `ready`: the successor may have a database to wait for. That it died is known at once.
READY_WITHIN = 120.0
MOST_TALKS = 8
# The names that are alive may be as many as the hub remembers.
_MOST_NAMES = 4 * 1024 * 1024
# The head of a request and what may wait behind it, in base64.
_MOST_HELD = 256 * 1024
_CONTROL = "control"
_WHY_NOT = {
    "starting": "is only starting; try again when it serves",
    "stopping": "is about to stop; start this one when it has ended",
    "busy": "is just being taken over from by another process; wait for that one",
    "foreign": "belongs to another user; start this one as that user",
}


# ---- the one that comes


@dataclass(frozen=True, slots=True)
class Left:
    """What the relay before leaves."""

    names: dict[str, str] = field(default_factory=dict)
    """That were alive there, each with its project."""
    held: list[tuple[socket.socket, bytes]] = field(default_factory=list)
    """Visitors whose requests waited there for an agent, and what they have sent. Whoever gets this closes them."""


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The relay that runs, and has handed over its sockets."""

    pid: int
    given: Given
    control: socket.socket
    talk: Talk

    async def replace(self) -> Left:
        """We serve. What was heard before the other one ended, or took too long, counts."""
        left = Left()
        with self.talk, contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWER_WITHIN):
                await self.talk.say({"ask": "ready"})
                told = await self.talk.hear(_MOST_NAMES)
                names = told.get("names")
                if isinstance(names, dict):
                    left.names.update({str(name): str(project) for name, project in names.items()})
                while held := await self.talk.hear(_MOST_HELD):
                    data = base64.b64decode(str(held.get("sent")))
                    left.held.extend((sock, data) for sock in self.talk.take(1))
        return left


async def ask(data: Path, closing: contextlib.ExitStack) -> Predecessor | None:
    """Asks the relay that runs on this directory for its sockets; None when there is none. Raises `StartError`."""
    path = data / CONTROL_NAME
    try:
        talk = connect(path, most_sockets=len(LISTENERS) + 1)
    except OSError as error:
        raise StartError(f"The relay that listens on {path} cannot be asked: {error.strerror}.") from None
    if talk is None:
        return None
    closing.enter_context(talk)
    told: Told = {}
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_WITHIN):
            await talk.say({"ask": "take-over"})
            told = await talk.hear()
    pid, names = told.get("pid"), told.get("sockets")
    if not isinstance(pid, int):
        raise StartError(
            f"The relay that listens on {path} does not answer: stop it first (kill {talk.peer[0]}), "
            "and start without --take-over."
        )
    sockets = talk.take(len(LISTENERS) + 1)
    for sock in sockets:
        closing.enter_context(sock)
    if not isinstance(names, list) or len(names) != len(sockets) or _CONTROL not in names:
        why = _WHY_NOT.get(str(told.get("is")), "hands nothing over; stop it, and start without --take-over")
        raise StartError(f"The relay with pid {pid} that runs on {data} {why}.")
    found = dict(zip(names, sockets, strict=True))
    control = found.pop(_CONTROL)
    return Predecessor(pid, Given(found, told.get("lent") is True), control, talk)


# ---- the one that is there


async def occupy(data: Path) -> socket.socket:
    """Becomes the relay of this directory. Raises `StartError` when another one is, and `OSError`."""
    path = data / CONTROL_NAME
    directory = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
    try:
        await _lock(directory, data)
        talk = connect(path)
        if talk is not None:
            with talk:
                raise StartError(await _taken(talk, data))
        path.unlink(missing_ok=True)  # nobody listens there: its relay was killed
        return listen(path)
    finally:
        os.close(directory)


async def _lock(directory: int, data: Path) -> None:
    """Of several that start at once one is first. Ends with the descriptor. Raises `StartError`."""
    end = asyncio.get_running_loop().time() + ANSWER_WITHIN
    while True:
        try:
            return fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if asyncio.get_running_loop().time() >= end:
                raise StartError(f"Another relay is just starting on {data}: wait, or choose another --data.") from None
        await asyncio.sleep(0.02)


async def _taken(talk: Talk, data: Path) -> str:
    told: Told = {}
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_WITHIN):
            await talk.say({"ask": "who"})
            told = await talk.hear()
    pid = told.get("pid") if isinstance(told.get("pid"), int) else talk.peer[0]
    return (
        f"A relay with pid {pid} already runs on {data}. Take over from it without losing a request: relay serve "
        f"--take-over. Or stop it first: kill {pid}."
    )


@dataclass(frozen=True, slots=True)
class Handed:
    """What a successor gets."""

    sockets: Mapping[str, socket.socket]
    lent: bool
    """See `Given.lent`."""
    live: Callable[[], Mapping[str, str]]
    """Names that are alive, each with its project."""
    held: Callable[[], list[tuple[int, bytes]]]
    """Called last: gives the visitors whose requests wait for an agent, a descriptor of each and what it has sent."""


class Control:
    """The directory's Unix socket, as long as this process is the relay there."""

    def __init__(self, sock: socket.socket, path: Path) -> None:
        self.successor: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """The process that has taken over: from then on nothing here is ours any more."""
        self.state = "starting"
        self._asked = False
        self._handing: asyncio.Task[None] | None = None
        self._sock = sock
        self._path = path
        self._handed: Handed | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        sock.listen(MOST_TALKS)  # once more: the kernel then names this process to whoever asks
        self._accepting = asyncio.ensure_future(self._accept())

    def open(self, handed: Handed) -> None:
        """This process serves: a successor may come."""
        self._handed = handed
        self.state = "serving"

    @property
    def shared(self) -> bool:
        """Whether another process has the sockets as well, or had them until a moment ago."""
        return self._asked or self.successor.done()

    async def aclose(self) -> None:
        """Gives the directory up, unless it is another's by now."""
        self._accepting.cancel()
        if not self.shared:
            # While we still listen: nobody can have put another one in its place.
            self._path.unlink(missing_ok=True)
        self._sock.close()
        for task in self._tasks:
            if task is not self._handing or not self.successor.done():  # who has taken over still hears what was alive
                task.cancel()
        await asyncio.gather(self._accepting, *self._tasks, return_exceptions=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._sock)
            except OSError:  # no descriptor is free, say
                await asyncio.sleep(1.0)
                continue
            if len(self._tasks) >= MOST_TALKS:
                sock.close()
                continue
            task = asyncio.ensure_future(self._talk(Talk(sock)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _talk(self, talk: Talk) -> None:
        with talk, contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWER_WITHIN):
                asked = (await talk.hear()).get("ask")
            if asked not in ("who", "take-over"):
                return
            pid, uid = talk.peer
            state = "foreign" if uid != os.getuid() else "busy" if self.shared else self.state
            if asked == "take-over" and state == "serving":
                await self._hand_over(talk, pid)
                return
            async with asyncio.timeout(ANSWER_WITHIN):
                await talk.say({"is": state, "pid": os.getpid()})

    async def _hand_over(self, talk: Talk, pid: int) -> None:
        handed = self._handed
        assert handed is not None
        sockets = {**handed.sockets, _CONTROL: self._sock}
        told = {"is": self.state, "pid": os.getpid(), "sockets": list(sockets), "lent": handed.lent}
        self._asked = True
        self._handing = asyncio.current_task()
        try:
            await talk.say(told, [one.fileno() for one in sockets.values()])
            async with asyncio.timeout(READY_WITHIN):
                if (await talk.hear()).get("ask") != "ready":
                    return  # it is gone: this one goes on
            self._accepting.cancel()
            names, held = dict(handed.live()), handed.held()
            self.successor.set_result(pid)
            await self._leave(talk, names, held)
        finally:
            self._asked = False

    async def _leave(self, talk: Talk, names: Mapping[str, str], held: list[tuple[int, bytes]]) -> None:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                await talk.say({"is": "leaving", "names": names})
                for descriptor, sent in held:
                    await talk.say({"sent": base64.b64encode(sent).decode()}, [descriptor])
        finally:
            for descriptor, _ in held:
                os.close(descriptor)


# ---- the place of either


class Seat:
    """This process's place as the relay of its directory."""

    def __init__(self, path: Path) -> None:
        self.predecessor: Predecessor | None = None
        self.control: Control | None = None
        self.trouble = ""
        """Why nobody will be able to take over, in a sentence."""
        self._path = path
        self._nobody: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def given(self) -> Given | None:
        """The sockets of the one before."""
        return self.predecessor.given if self.predecessor is not None else None

    @property
    def successor(self) -> asyncio.Future[int]:
        """Done once another process has taken over: its id."""
        return self._nobody if self.control is None else self.control.successor

    @property
    def shared(self) -> bool:
        """Whether another process has the listening sockets as well."""
        return self.control is not None and self.control.shared

    async def take(self, handed: Handed) -> Left:
        """This process serves, and the one before leaves."""
        left = Left()
        if self.predecessor is not None:
            left = await self.predecessor.replace()
            self.control = Control(self.predecessor.control, self._path)
        if self.control is not None:
            self.control.open(handed)
        return left

    def close(self) -> None:
        """This process ends: nobody takes over any more, but for one that is about to."""
        if self.control is not None:
            self.control.state = "stopping"


@contextlib.asynccontextmanager
async def seated(data: Path, take_over: bool, closing: contextlib.ExitStack) -> AsyncIterator[Seat]:
    """The seat, until the process ends; `closing` ends what it was given. Raises `StartError`."""
    seat = Seat(data / CONTROL_NAME)
    if take_over:
        seat.predecessor = await ask(data, closing)
    if seat.predecessor is None:
        try:
            seat.control = Control(await occupy(data), data / CONTROL_NAME)
        except OSError as error:
            # Some file systems have no such sockets: the relay itself needs none.
            seat.trouble = (
                f"{data / CONTROL_NAME} cannot be made ({error.strerror}): nobody can take over from this relay"
            )
    try:
        yield seat
    finally:
        if seat.control is not None:
            await seat.control.aclose()
