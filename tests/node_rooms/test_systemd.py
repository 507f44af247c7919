"""What a service manager hands over, and what it is told."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator

import pytest

from relay.node import systemd as room
from relay.node.errors import StartError
from relay.node.sockets import NOTHING
from relay.node.systemd import READY, inherited, tell
from tests.node_rooms.test_sockets import at, listening


@pytest.fixture
def descriptors(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """Two listening sockets, also under neighbouring numbers, where this process finds what it was started with."""
    pair = [listening(), listening()]
    low = 300
    for place, sock in enumerate(pair):
        os.dup2(sock.fileno(), low + place)
    monkeypatch.setattr(room, "_FIRST", low)
    yield pair
    for place, sock in enumerate(pair):
        sock.close()
        with contextlib.suppress(OSError):
            os.close(low + place)


def variables(names: str | None, count: int = 2, pid: int | None = None) -> dict[str, str]:
    told = {"LISTEN_PID": str(pid or os.getpid()), "LISTEN_FDS": str(count), "PATH": "/bin"}
    return told if names is None else {**told, "LISTEN_FDNAMES": names}


@pytest.mark.parametrize(
    ("names", "found"),
    [("agents:public", ["agents", "public"]), (None, ["public", "agents"]), ("one", ["public", "agents"])],
    ids=["named", "without names", "too few names"],
)
def test_what_systemd_hands_over(descriptors: list[socket.socket], names: str | None, found: list[str]) -> None:
    """By its names, else in their order; no child of ours inherits them or is told of them."""
    environment = variables(names)
    with contextlib.ExitStack() as closing:
        given = inherited(environment, closing)
        assert given.lent
        addresses = dict(zip(found, map(at, descriptors), strict=True))
        assert {name: at(sock) for name, sock in given.sockets.items()} == addresses
        assert not any(sock.get_inheritable() for sock in given.sockets.values())
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "environment",
    [{}, variables("public", pid=1), variables("public", 0), {**variables("public"), "LISTEN_FDS": "x"}],
    ids=["none", "another process", "no sockets", "nonsense"],
)
def test_what_was_meant_for_another_process_is_left_alone(environment: dict[str, str]) -> None:
    """The variables of a parent, none at all, or nonsense."""
    with contextlib.ExitStack() as closing:
        assert inherited(dict(environment), closing) is NOTHING


@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize("names", ["public:public", "public:relay.socket"])
def test_names_that_are_none_of_ours(names: str) -> None:
    """Which socket is for whom must be said: what agents send is not for visitors' eyes, nor the other way round."""
    with contextlib.ExitStack() as closing, pytest.raises(StartError, match="FileDescriptorName=public, agents"):
        inherited(variables(names), closing)


@pytest.mark.usefixtures("descriptors")
def test_a_descriptor_that_is_no_socket() -> None:
    """The sentence says what to write instead."""
    os.close(room._FIRST)
    with contextlib.ExitStack() as closing, pytest.raises(StartError, match="ListenStream=HOST:PORT"):
        inherited(variables("public:agents"), closing)


@pytest.mark.parametrize("abstract", [True, False])
def test_a_service_manager_is_told(abstract: bool) -> None:
    """Through a file or an abstract name, as it asks."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = f"{folder}/notify"
        manager.bind("\0" + path if abstract else path)
        tell({"NOTIFY_SOCKET": ("@" if abstract else "") + path}, READY)
        manager.settimeout(5.0)
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("path", ["", "vsock:2:1234", "/nobody/listens", "@nobody-listens"])
def test_where_nobody_asks_nothing_is_told(path: str) -> None:
    """Nor where whoever asked is gone: the relay serves all the same."""
    tell({"NOTIFY_SOCKET": path} if path else {}, READY)
