"""One relay for each data directory, and what it says to the next one, over a real Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.node import takeover as room
from relay.node.controlsocket import Talk, connect, listen
from relay.node.errors import StartError
from relay.node.serve import Serving
from relay.node.sockets import Given
from relay.node.takeover import CONTROL_NAME, MOST_TALKS, Control, Handed, Predecessor, ask, occupy, seated
from relay.settings import ServeSettings
from tests.agent.localside import on_every_loop, within
from tests.agent.relayside import until


@contextlib.asynccontextmanager
async def relay_of(
    data: Path, held: list[tuple[int, bytes]] | None = None, lent: bool = False
) -> AsyncIterator[Control]:
    """The control of a relay that serves, with a public and an agents' socket."""
    control = Control(await occupy(data), data / CONTROL_NAME)
    with socket.create_server(("127.0.0.1", 0)) as public, socket.create_server(("127.0.0.1", 0)) as agents:
        control.open(Handed({"public": public, "agents": agents}, lent, lambda: {"demo": "p"}, lambda: held or []))
        try:
            yield control
        finally:
            await control.aclose()


async def answer_to(data: Path, **said: object) -> dict[str, object]:
    talk = connect(data / CONTROL_NAME)
    assert talk is not None
    with talk:
        await talk.say(said)
        told: dict[str, object] = await within(talk.hear())
        return told


# ---- taking over


@pytest.mark.parametrize("lent", [True, False])
@on_every_loop
async def test_sockets_names_and_visitors_are_handed_over(tmp_path: Path, lent: bool) -> None:
    """Each socket under its name, what was alive, and who waited with what it had sent; then the place is another's,
    and the file stays."""
    visitors = [socket.socketpair() for _ in range(3)]
    held = [(os.dup(one.fileno()), b"GET %d" % number * 20_000) for number, (one, _) in enumerate(visitors)]
    with contextlib.ExitStack() as closing:
        for one in [one for pair in visitors for one in pair]:
            closing.enter_context(one)
        async with relay_of(tmp_path, held, lent) as control:
            found = await ask(tmp_path, closing)
            assert found is not None
            assert (found.pid, list(found.given.sockets), found.given.lent) == (os.getpid(), ["public", "agents"], lent)
            port = found.given.sockets["public"].getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)), found.given.sockets["public"].accept()[0]:
                pass
            assert not control.successor.done()
            left = await within(found.replace())
            assert control.successor.result() == os.getpid()
            assert left.names == {"demo": "p"}
            assert [sent for _, sent in left.held] == [sent for _, sent in held]
            for (theirs, sent), (_, visitor) in zip(left.held, visitors, strict=True):
                with theirs:
                    theirs.send(sent[:5])
                    assert visitor.recv(5) == sent[:5]
        assert (tmp_path / CONTROL_NAME).exists()
        after = Control(found.control, tmp_path / CONTROL_NAME)
        assert (await answer_to(tmp_path, ask="who"))["is"] == "starting"
        await after.aclose()
        assert not (tmp_path / CONTROL_NAME).exists()
        for descriptor, _ in held:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)


@on_every_loop
async def test_a_successor_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    """Whether it says nothing more or something else: the relay serves on, and another one may come."""
    async with relay_of(tmp_path) as control:
        for last in (None, {"ask": "who"}):
            with contextlib.ExitStack() as closing:
                found = await ask(tmp_path, closing)
                assert found is not None
                assert control.shared
                if last is not None:
                    await found.talk.say(last)
            await until(lambda: not control.shared)
            assert not control.successor.done()
        with contextlib.ExitStack() as closing:
            assert await ask(tmp_path, closing) is not None


@on_every_loop
async def test_a_relay_that_ends_while_it_is_taken_over(tmp_path: Path) -> None:
    """Its successor has all it needs: it is told nothing, and the file is left to it."""
    with contextlib.ExitStack() as closing:
        async with relay_of(tmp_path) as control:
            found = await ask(tmp_path, closing)
            assert found is not None
            control.state = "stopping"
        left = await within(found.replace())
        assert (left.names, left.held) == ({}, [])
        assert (tmp_path / CONTROL_NAME).exists()


# ---- who may not


@pytest.mark.parametrize(
    ("state", "said"),
    [("starting", "is only starting"), ("stopping", "is about to stop"), ("foreign", "belongs to another user")],
)
@on_every_loop
async def test_when_nothing_is_handed_over(
    tmp_path: Path, state: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names the process and the reason. Who the user is, is what the kernel knows."""
    async with relay_of(tmp_path) as control:
        if state == "foreign":
            monkeypatch.setattr(Talk, "peer", (1, os.getuid() + 1))
        else:
            control.state = state
        with contextlib.ExitStack() as closing, pytest.raises(StartError, match=f"pid {os.getpid()} .* {said}"):
            await ask(tmp_path, closing)
        assert not control.shared


@on_every_loop
async def test_two_successors_at_once(tmp_path: Path) -> None:
    """The second one is told to wait for the first."""
    async with relay_of(tmp_path):
        with contextlib.ExitStack() as closing:
            assert await ask(tmp_path, closing) is not None
            with pytest.raises(StartError, match="just being taken over"):
                await ask(tmp_path, closing)


@on_every_loop
async def test_somebody_who_listens_and_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that was halted, say: the process is named, by what the kernel knows."""
    monkeypatch.setattr(room, "ANSWER_WITHIN", 0.05)
    with listen(tmp_path / CONTROL_NAME), contextlib.ExitStack() as closing:
        with pytest.raises(StartError, match=rf"does not answer: stop it first \(kill {os.getpid()}\)"):
            await ask(tmp_path, closing)
        with pytest.raises(StartError, match=f"A relay with pid {os.getpid()} already runs"):
            await occupy(tmp_path)


@on_every_loop
async def test_nobody_to_take_over_from(tmp_path: Path) -> None:
    """No file, or one that a killed relay left."""
    with contextlib.ExitStack() as closing:
        assert await ask(tmp_path, closing) is None
        listen(tmp_path / CONTROL_NAME).close()
        assert await ask(tmp_path, closing) is None
        (await occupy(tmp_path)).close()


# ---- the place


@on_every_loop
async def test_the_directory_is_one_relays(tmp_path: Path) -> None:
    """The file is closed to others; a second relay is refused by pid; the file goes with its relay."""
    async with relay_of(tmp_path):
        assert stat.S_IMODE((tmp_path / CONTROL_NAME).stat().st_mode) == 0o600
        with pytest.raises(StartError) as caught:
            await occupy(tmp_path)
        for text in (f"kill {os.getpid()}", "--take-over", str(tmp_path)):
            assert text in str(caught.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "relay.db"]


@on_every_loop
async def test_of_several_that_start_at_once_one_is_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait for it, and not for ever."""
    monkeypatch.setattr(room, "ANSWER_WITHIN", 0.05)
    directory = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    with pytest.raises(StartError, match="just starting"):
        await occupy(tmp_path)
    monkeypatch.setattr(room, "ANSWER_WITHIN", 5.0)
    waiting = asyncio.ensure_future(occupy(tmp_path))
    await asyncio.sleep(0)
    os.close(directory)
    (await within(waiting)).close()


@on_every_loop
async def test_a_directory_with_a_long_name(tmp_path: Path) -> None:
    """The kernel takes 107 bytes of a path to a socket; a data directory may be deeper."""
    deep = tmp_path / ("x" * 100) / ("y" * 100)
    deep.mkdir(parents=True)
    async with relay_of(deep):
        assert (await answer_to(deep, ask="who")) == {"is": "serving", "pid": os.getpid()}
        assert stat.S_IMODE((deep / CONTROL_NAME).stat().st_mode) == 0o600
    assert list(deep.iterdir()) == []


@on_every_loop
async def test_a_file_system_without_such_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay runs all the same, and says what it cannot do."""

    def refuse(path: Path) -> socket.socket:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(room, "listen", refuse)
    with contextlib.ExitStack() as closing:
        async with seated(tmp_path, False, closing) as seat:
            assert "Operation not supported" in seat.trouble
            left = await seat.take(Handed({}, False, dict, list))
            assert (left.names, seat.shared, seat.successor.done()) == ({}, False, False)
            seat.close()


@on_every_loop
async def test_talkers_are_bounded(tmp_path: Path) -> None:
    """So many at once; whoever comes then is not heard, and once they have left all is as before."""
    async with relay_of(tmp_path) as control:
        talks = [connect(tmp_path / CONTROL_NAME) for _ in range(MOST_TALKS + 1)]
        last = talks[-1]
        assert last is not None
        assert await within(last.hear()) == {}
        for talk in talks:
            assert talk is not None
            talk.close()
        await until(lambda: not control._tasks)
        assert (await answer_to(tmp_path, ask="who"))["is"] == "serving"


async def test_a_takeover_does_not_change_the_schema_under_the_relay_before(tmp_path: Path) -> None:
    """That one goes on for a while and knows its own schema only: the sentence says how to come to the new one."""
    (tmp_path / "relay.db").unlink()
    serving = Serving(ServeSettings(data=tmp_path), lambda event: None, take_over=True)
    seat = room.Seat(tmp_path / CONTROL_NAME)
    await serving._check_schema(seat)
    with contextlib.ExitStack() as closing:
        talk, control = (closing.enter_context(one) for one in socket.socketpair())
        seat.predecessor = Predecessor(123, Given({}, lent=False), control, Talk(talk))
        with pytest.raises(StartError, match=r"another schema .* \(kill 123\)"):
            await serving._check_schema(seat)
