"""The composition root: settings become parts that know the right things; addresses are those that visitors use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from relay.edge.visitor import Visitor
from relay.node.assemble import Node, assemble, visitor_factory
from relay.node.ground import lay
from relay.settings import ServeSettings
from relay.tunnels.keyadmission import KeyAdmission
from tests.tunnels.test_hub import a_link


@asynccontextmanager
async def a_node(tmp_path: Path, port: int = 8080, **settings: Any) -> AsyncIterator[Node]:
    async with lay(ServeSettings(data=tmp_path, **settings), port) as ground:
        yield assemble(ground, lambda event: None)


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
    async with a_node(tmp_path, **settings) as node:
        assert node.public_url("demo") == url
        assert node.services.scheme == scheme


async def test_the_default_port_is_not_printed(tmp_path: Path) -> None:
    """http on 80 needs none."""
    async with a_node(tmp_path, 80) as node:
        assert node.public_url("demo") == "http://demo.tunnels.localhost"


async def test_settings_reach_the_parts_that_they_are_for(tmp_path: Path) -> None:
    """Each value is where it counts."""
    chosen: dict[str, Any] = {
        "head_timeout": 1.0,
        "idle_timeout": 2.0,
        "response_head_timeout": 3.0,
        "max_connections": 4,
        "max_connections_per_address": 3,
        "max_agent_connections": 2,
        "max_agent_connections_per_address": 1,
        "max_streams": 5,
        "session_window": 6_000_000,
        "ping_interval": 7.0,
        "trusted_proxies": (ip_network("10.0.0.0/8"),),
        "audience": ("relay",),
    }
    async with a_node(tmp_path, **chosen) as node:
        timeouts = node.services.timeouts
        assert (timeouts.head, timeouts.idle, timeouts.response_head) == (1.0, 2.0, 3.0)
        visitors, agents = node.services.crowd, node.doorway.connections
        assert (visitors.most, visitors.most_of_one, agents.most, agents.most_of_one) == (4, 3, 2, 1)
        session = node.doorway.options.session
        assert (session.opener, session.max_streams, session.session_window) == (True, 5, 6_000_000)
        assert session.ping_interval == 7.0
        assert node.services.trusts("10.1.1.1")
        assert node.services.hub is node.hub is node.doorway.hub
        assert node.office.audiences >= {"tunnels.localhost", "127.0.0.1", "relay"}
        assert isinstance(node.doorway.admission, KeyAdmission)


async def test_events_of_the_hub_are_reported(tmp_path: Path) -> None:
    """As events with names, for people and programs; and for the audit, one note for each name."""
    reports: list[dict[str, object]] = []
    async with lay(ServeSettings(data=tmp_path), 8080) as ground:
        node = assemble(ground, reports.append)
        link = a_link("one", "two")
        node.hub.attach(link)
        node.hub.detach(link)
        notes = [(note.action, note.subject, note.actor.key_id) for note in node.journal.waiting()]
    assert reports == [
        {"event": "agent_up", "names": ["one", "two"]},
        {"event": "agent_down", "names": ["one", "two"]},
    ]
    assert notes == [
        (action, name, "key of p") for action in ("tunnel.open", "tunnel.close") for name in ("one", "two")
    ]


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("tunnels.localhost", True),
        ("TUNNELS.localhost.", True),
        ("demo.tunnels.localhost", True),
        ("gone.tunnels.localhost", True),
        ("kept.tunnels.localhost", True),
        ("never.tunnels.localhost", False),
        ("x.demo.tunnels.localhost", False),
        ("example.com", False),
        ("", False),
        ("a b", False),
        ("é.tunnels.localhost", False),
    ],
)
async def test_which_hosts_deserve_a_certificate(tmp_path: Path, host: str, known: bool) -> None:
    """The domain itself, and names that are alive, may come back, or are reserved."""
    async with a_node(tmp_path) as node:
        node.hub.attach(a_link("demo"))
        node.hub.attach(gone := a_link("gone", slot=1))
        node.hub.detach(gone)
        node.hub.reserved["kept"] = "p"
        assert node.known_host(host) is known


async def test_each_connection_gets_a_visitor(tmp_path: Path) -> None:
    """As uvicorn calls for it."""
    async with a_node(tmp_path) as node:
        made = visitor_factory(node.services)(
            config=None, server_state=None, app_state={}, _loop=asyncio.get_running_loop()
        )
        assert isinstance(made, Visitor)
