"""The composition root: settings become parts that know the right things; addresses are those that visitors use."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from relay.edge.visitor import Visitor
from relay.node.assemble import Node, assemble, visitor_factory
from relay.node.errors import StartError
from relay.settings import ServeSettings
from relay.tunnels.admission import Principal
from relay.wire.hello import Hello
from tests.tunnels.test_hub import a_link


def a_node(tmp_path: Path, **settings: Any) -> Node:
    reports: list[dict[str, object]] = []
    return assemble(ServeSettings(data=tmp_path, **settings), 8080, reports.append)


@pytest.mark.parametrize(
    ("settings", "url", "scheme"),
    [
        ({}, "http://demo.tunnels.localhost:8080", "http"),
        ({"domain": "localhost"}, "http://demo.localhost:8080", "http"),
        ({"domain": "tunnels.example.com"}, "https://demo.tunnels.example.com", "https"),
        ({"domain": "x.example", "public_url": "http://x.example"}, "http://demo.x.example", "http"),
        ({"domain": "x.example", "public_url": "https://x.example:8443"}, "https://demo.x.example:8443", "https"),
        ({"public_url": "https://tunnels.localhost"}, "https://demo.tunnels.localhost", "https"),
    ],
)
async def test_addresses_as_visitors_reach_them(tmp_path: Path, settings: Any, url: str, scheme: str) -> None:
    """Scheme and port of printed addresses, and the scheme that local services are told, are one decision."""
    node = a_node(tmp_path, **settings)
    assert node.public_url("demo") == url
    assert node.services.scheme == scheme


async def test_the_default_port_is_not_printed(tmp_path: Path) -> None:
    """http on 80 needs none."""
    node = assemble(ServeSettings(data=tmp_path), 80, lambda event: None)
    assert node.public_url("demo") == "http://demo.tunnels.localhost"


async def test_settings_reach_the_parts_that_they_are_for(tmp_path: Path) -> None:
    """Each value is where it counts."""
    node = a_node(
        tmp_path,
        head_timeout=1.0,
        idle_timeout=2.0,
        response_head_timeout=3.0,
        max_connections=4,
        max_streams=5,
        session_window=6_000_000,
        ping_interval=7.0,
        trusted_proxies=(ip_network("10.0.0.0/8"),),
        agent_key="secret",
    )
    timeouts = node.services.timeouts
    assert (timeouts.head, timeouts.idle, timeouts.response_head) == (1.0, 2.0, 3.0)
    assert node.services.most_connections == 4
    session = node.doorway.options.session
    assert (session.opener, session.max_streams, session.session_window, session.ping_interval) == (
        True,
        5,
        6_000_000,
        7.0,
    )
    assert node.services.trusts("10.1.1.1")
    assert node.services.hub is node.hub is node.doorway.hub
    admitted = await node.doorway.admission.admit(Hello("a", 0, 1, "secret", ("demo",)))
    assert isinstance(admitted, Principal)


async def test_events_of_the_hub_are_reported(tmp_path: Path) -> None:
    """As events with names, for people and programs."""
    reports: list[dict[str, object]] = []
    node = assemble(ServeSettings(data=tmp_path), 8080, reports.append)
    link = a_link("one", "two")
    node.hub.attach(link)
    node.hub.detach(link)
    assert reports == [
        {"event": "agent_up", "names": ["one", "two"]},
        {"event": "agent_down", "names": ["one", "two"]},
    ]


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("tunnels.localhost", True),
        ("TUNNELS.localhost.", True),
        ("demo.tunnels.localhost", True),
        ("gone.tunnels.localhost", True),
        ("never.tunnels.localhost", False),
        ("x.demo.tunnels.localhost", False),
        ("example.com", False),
        ("", False),
        ("a b", False),
        ("é.tunnels.localhost", False),
    ],
)
async def test_which_hosts_deserve_a_certificate(tmp_path: Path, host: str, known: bool) -> None:
    """The domain itself, and names that are alive or may come back."""
    node = a_node(tmp_path)
    node.hub.attach(a_link("demo"))
    node.hub.attach(gone := a_link("gone", slot=1))
    node.hub.detach(gone)
    assert node.known_host(host) is known


async def test_a_key_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    """With the operator's sentence."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError):
        a_node(tmp_path / "file")


async def test_each_connection_gets_a_visitor(tmp_path: Path) -> None:
    """As uvicorn calls for it."""
    node = a_node(tmp_path)
    made = visitor_factory(node.services)(
        config=None, server_state=None, app_state={}, _loop=asyncio.get_running_loop()
    )
    assert isinstance(made, Visitor)
