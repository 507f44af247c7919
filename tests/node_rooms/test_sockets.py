"""Where a node's sockets come from: bound here, from a service manager, from a relay before; and where they must be."""

from __future__ import annotations

import contextlib
import socket

import pytest

from relay.node.errors import StartError
from relay.node.sockets import Given, Sockets, bind, name_of
from relay.settings import Address, ServeSettings

HERE = Address("127.0.0.1", 0)


def test_a_free_port_is_found_and_named() -> None:
    """Port 0 becomes a real one; the name is host and port."""
    with bind(HERE, "public") as sock:
        assert name_of(sock) == f"127.0.0.1:{sock.getsockname()[1]}"
        assert sock.getsockname()[1] > 0
        assert not sock.getblocking()


def test_an_ipv6_address_is_named_in_brackets() -> None:
    """As in a URL."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        sock = bind(Address("::1", 0), "public")
    except StartError:
        pytest.skip("no IPv6 loopback here")
    with sock:
        assert name_of(sock) == f"[::1]:{sock.getsockname()[1]}"


def test_an_address_in_use_is_said() -> None:
    """One sentence: the address, what it was for, why, and the option that changes it."""
    with bind(HERE, "agents") as sock:
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(StartError) as caught:
            bind(Address("127.0.0.1", port), "agents")
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "in use" in str(caught.value)
    assert "--agents" in str(caught.value)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_is_not_here_is_said(host: str) -> None:
    """An address of another machine, a name that does not resolve."""
    with pytest.raises(StartError, match="--public"):
        bind(Address(host, 0), "public")


# ---- given


def listening(host: str = "127.0.0.1") -> socket.socket:
    return socket.create_server((host, 0))


def at(sock: socket.socket) -> Address:
    host, port = sock.getsockname()[:2]
    return Address(host, port)


def test_what_is_given_is_used_and_the_rest_is_bound() -> None:
    """A listener that the settings do not want is closed; all of them end with the node."""
    public, internal = listening(), listening()
    with contextlib.ExitStack() as closing:
        given = Given({"public": public, "internal": internal}, lent=True)
        opened = Sockets.open(ServeSettings(public=at(public), agents=HERE), given, closing)
        assert opened.public is public
        assert not public.getblocking()
        assert (opened.internal, opened.lent) == (None, True)
        assert opened.names()[0] == name_of(public)
        assert list(opened.by_name()) == ["public", "agents"]
    assert [one.fileno() for one in (public, internal, opened.agents)] == [-1, -1, -1]


@pytest.mark.parametrize("wanted", [Address("localhost", 0), HERE], ids=str)
def test_port_0_is_any_port_and_a_name_is_its_address(wanted: Address) -> None:
    """What the settings leave open fits whatever was given."""
    with contextlib.ExitStack() as closing:
        given = Given({"public": listening(), "agents": listening()}, lent=False)
        assert Sockets.open(ServeSettings(public=wanted, agents=HERE), given, closing).agents is given.sockets["agents"]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_another_address_is_refused(host: str) -> None:
    """The settings were judged by theirs: a listener that others can reach needs a trusted proxy."""
    sock = listening(host)
    wanted = Address("127.0.0.1", 1 if host == "127.0.0.1" else at(sock).port)
    found = name_of(sock)
    with contextlib.ExitStack() as closing, pytest.raises(StartError) as caught:
        Sockets.open(ServeSettings(public=wanted, agents=HERE), Given({"public": sock}, lent=False), closing)
    assert f"listens on {found}, but the setting says {wanted}" in str(caught.value)
    assert f"--public {found}" in str(caught.value)
