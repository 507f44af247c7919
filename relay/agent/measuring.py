"""What an agent tells of itself when it is scraped: names, labels and meanings as in docs/metrics.md.

Imported only by an agent that was told to serve metrics.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from typing import Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from relay import __version__
from relay.agent.config import AgentSettings
from relay.agent.keyholder import KeyHolder
from relay.agent.link import Link
from relay.agent.metricsdoor import Page, Pages
from relay.agent.tally import ERRORS, Tally
from relay.mux.glance import look
from relay.telemetry.families import CONTENT_TYPE, Exposition, counter, gauge, histogram
from relay.telemetry.traffic import CLASSES


class Watched(Protocol):
    """The agent, as far as it is measured. See `runner.Agent`."""

    @property
    def settings(self) -> AgentSettings: ...
    @property
    def keys(self) -> KeyHolder: ...
    @property
    def links(self) -> Sequence[Link]: ...
    @property
    def exchanges(self) -> int: ...
    def connections(self) -> tuple[int, int]: ...
    def carried(self) -> tuple[int, int]: ...


class AgentNumbers(Collector):
    """Of one agent; `tally` hears its events."""

    def __init__(self, agent: Watched, tally: Tally) -> None:
        self._agent = agent
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        yield from self._traffic()
        yield from self._links()
        yield from self._keys()
        open_, idle = self._agent.connections()
        values = {"open": float(open_), "idle": float(idle)}
        yield gauge("relay_agent_local_connections", "Connections to local services.", values, "state")
        yield gauge("relay_agent_ready", "Whether /readyz answers 200.", not self._tally.reasons())
        build: dict[tuple[str, ...], float] = {(__version__, platform.python_version()): 1.0}
        yield gauge("relay_agent_build_info", "Versions.", build, "version", "python")

    def _traffic(self) -> Iterator[Metric]:
        agent, tally = self._agent, self._tally
        requests: dict[tuple[str, ...], float] = dict.fromkeys([(one, "") for one in CLASSES], 0)
        requests |= dict.fromkeys([("none", error) for error in ERRORS], 0)
        requests |= {of: float(count) for of, count in tally.requests.items()}
        yield counter("relay_agent_requests_total", "Requests that are over.", requests, "class", "error")
        yield histogram("relay_agent_request_duration_seconds", "From a request's head to its end.", tally.duration)
        back, towards = agent.carried()
        sizes = {"in": float(towards), "out": float(back)}
        yield counter("relay_agent_bytes_total", "Bytes of bodies.", sizes, "direction")
        yield gauge("relay_agent_exchanges_open", "Exchanges under way.", agent.exchanges)
        found = look(link.session for link in agent.links if link.session is not None)
        stalled = {"in": float(found.stalled_received), "out": float(found.stalled_sent)}
        yield gauge("relay_agent_streams_open", "Streams open on all links.", found.streams)
        yield gauge("relay_agent_streams_stalled", "Streams whose window is used up.", stalled, "direction")

    def _links(self) -> Iterator[Metric]:
        settings, tally = self._agent.settings, self._tally
        yield gauge("relay_agent_tunnels", "Tunnels.", len(settings.tunnels))
        yield gauge("relay_agent_links_wanted", "Links to keep up.", settings.links)
        yield gauge("relay_agent_links_live", "Links that are up.", len(tally.up))
        yield counter("relay_agent_links_opened_total", "Links that were admitted.", tally.opened)
        yield counter("relay_agent_links_lost_total", "Links that were up and ended.", tally.lost)
        yield counter("relay_agent_link_attempts_failed_total", "Attempts that led to no link.", tally.failed)
        yield counter("relay_agent_links_refused_total", "Of these, by a refusal.", tally.refused)
        trips = {
            str(link.slot): link.session.keepalive.trips.last
            for link in self._agent.links
            if link.session is not None and link.session.keepalive.measured and not link.session.leaving
        }
        yield gauge("relay_agent_link_round_trip_seconds", "Round trips by the last pings.", trips, "slot")

    def _keys(self) -> Iterator[Metric]:
        keys, tally = self._agent.keys, self._tally
        left = keys.left()
        yield counter("relay_agent_keys_minted_total", "Keys that the agent minted.", tally.minted)
        yield counter("relay_agent_key_failures_total", "Mints and renewals that failed.", tally.key_failures)
        yield gauge("relay_agent_key_expires_seconds", "Until the key held ends.", {} if left is None else left)
        yield gauge("relay_agent_key_renewable", "Whether the agent replaces its keys.", keys.renewable)


def pages(agent: Watched, tally: Tally) -> Pages:
    """What the agent's listener answers."""
    exposition = Exposition(AgentNumbers(agent, tally))

    def readyz() -> Page:
        reasons = tally.reasons()
        return Page(503 if reasons else 200, "\n".join([*(reasons or ["ok"]), ""]).encode())

    return {
        "/livez": lambda: Page(200, b"ok\n"),
        "/readyz": readyz,
        "/metrics": lambda: Page(200, exposition.text(), CONTENT_TYPE),
    }
