"""What a node tells of itself when it is scraped: names, labels and meanings as in docs/metrics.md.

Read at that moment from those who count. Every label's values are a list of ours, but for tunnels', which are bounded
by a setting; a series that can be 0 is there from the start.
"""

from __future__ import annotations

import asyncio
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

import relay
from relay.edge.answers import TABLE
from relay.keys.forms import Kind
from relay.mux.glance import look, round_trips
from relay.node.assemble import Node
from relay.node.readiness import reasons
from relay.telemetry.families import counter, gauge, histogram
from relay.telemetry.histograms import Histogram
from relay.telemetry.traffic import CLASSES, OTHERS, Traffic, class_of

QUANTILES = (0.5, 0.9, 1.0)
LIMIT_CODES = ("rate_limited", "quota_exhausted", "too_many_streams", "body_too_large")
SHOWN_OTHERS = "(others)"
"""No name of a tunnel can look so."""


class Measuring(Collector):
    """One per node. `lag`: how late its sweeper was, in seconds. `certificate_ends`: when the certificate that is
    served does, in seconds since the epoch; None without one. `unlogged`: requests of which no line tells.
    """

    def __init__(
        self,
        node: Node,
        lag: Histogram,
        certificate_ends: Callable[[], float | None],
        unlogged: Callable[[], int],
    ) -> None:
        self._node = node
        self._lag = lag
        self._certificate_ends = certificate_ends
        self._unlogged = unlogged

    def unready(self) -> list[str]:
        """See `readiness.reasons`."""
        return reasons(self._node, asyncio.get_running_loop().time())

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        node = self._node
        node.services.traffic.settle()
        yield from _requests(node)
        yield from _tunnels(node.services.traffic)
        yield from _links(node)
        yield from _flow(node)
        yield from _connections(node)
        yield from self._keys()
        yield from _registry(node)
        yield from self._process()

    def _keys(self) -> Iterator[Metric]:
        node, now, ends = self._node, time.time(), self._certificate_ends()
        yield gauge(
            "relay_certificate_expires_seconds",
            "Until the certificate that is served ends.",
            {} if ends is None else ends - now,
        )
        yield gauge("relay_key_expires_seconds", "Until the first key ends.", _key_ends(node, now), "kind")
        yield counter("relay_revocations_total", "Keys that were revoked.", node.live.revoked)
        yield histogram("relay_revocation_cut_seconds", "From a key's revocation to the cut.", node.live.cut)

    def _process(self) -> Iterator[Metric]:
        services, pressure = self._node.services, self._node.pressure
        yield gauge("relay_ready", "Whether /readyz answers 200.", not self.unready())
        yield gauge("relay_draining", "Whether the relay stops or hands over.", services.draining)
        yield histogram("relay_loop_lag_seconds", "How late a timer comes.", self._lag)
        yield counter("relay_access_log_dropped_total", "Requests of which no line tells.", self._unlogged())
        yield gauge("relay_tasks", "Tasks of the event loop.", len(asyncio.all_tasks()))
        yield gauge("relay_memory_budget_bytes", "Resident memory to keep below; 0: unknown.", pressure.budget or 0)
        yield gauge("relay_memory_pressure_level", "How short of memory the relay is, 0 to 3.", services.level)
        yield gauge("relay_build_info", "Versions.", build(), "version", "python")


def build() -> dict[tuple[str, ...], float]:
    """Our version and Python's."""
    return {(relay.__version__, platform.python_version()): 1.0}


# ---- visitors


def _requests(node: Node) -> Iterator[Metric]:
    traffic, hub, services = node.services.traffic, node.hub, node.services
    text = "Requests that are over."
    yield counter("relay_requests_total", text, requests_by_class(traffic), "class", "error")
    yield counter("relay_requests_broken_off_total", "Answers that were not completed.", traffic.broken_off)
    yield histogram("relay_request_duration_seconds", "From a request's head to its end.", traffic.duration)
    yield histogram("relay_time_to_first_byte_seconds", "From a request's head to its answer.", traffic.first_byte)
    towards, back = hub.carried()
    yield counter("relay_bytes_total", "Bytes of bodies.", {"in": towards, "out": back}, "direction")
    yield counter("relay_limit_refusals_total", "Requests refused or cut by a limit.", _limits(traffic), "code")
    yield gauge("relay_exchanges_open", "Exchanges under way.", services.exchanges)
    yield gauge("relay_requests_held", "Requests that wait for an agent to come back.", hub.held)
    yield gauge("relay_requests_held_bytes", "Bytes of these.", hub.held_bytes)
    yield gauge("relay_visitor_connections", "Connections of visitors.", len(services.visitors))


def requests_by_class(traffic: Traffic) -> dict[tuple[str, ...], float]:
    """By class and error, with 0 for each class without error and for each error in its own class."""
    found: dict[tuple[str, ...], float] = dict.fromkeys([(one, "") for one in CLASSES], 0)
    found |= dict.fromkeys([(CLASSES[row.status // 100], code.value) for code, row in TABLE.items()], 0)
    for (number, code), count in traffic.requests.items():
        of = class_of(number), code
        found[of] = found.get(of, 0) + count
    return found


def _limits(traffic: Traffic) -> dict[str, float]:
    found: dict[str, float] = dict.fromkeys(LIMIT_CODES, 0)
    for (_, code), count in traffic.requests.items():
        if code in found:
            found[code] += count
    return found


def _tunnels(traffic: Traffic) -> Iterator[Metric]:
    of = {SHOWN_OTHERS if name == OTHERS else name: one for name, one in traffic.tunnels.items()}
    requests = {name: float(one.requests) for name, one in of.items()}
    errors = {name: float(one.errors) for name, one in of.items()}
    sizes: dict[tuple[str, ...], float] = {(name, "in"): one.bytes_in for name, one in of.items()}
    sizes |= {(name, "out"): one.bytes_out for name, one in of.items()}
    yield counter("relay_tunnel_requests_total", "Requests that are over.", requests, "tunnel")
    yield counter("relay_tunnel_errors_total", "Of these, those that failed.", errors, "tunnel")
    yield counter("relay_tunnel_bytes_total", "Bytes of their bodies.", sizes, "tunnel", "direction")


# ---- agents


def _links(node: Node) -> Iterator[Metric]:
    hub, counts = node.hub, node.doorway.counts
    yield gauge("relay_tunnels_live", "Names that an agent serves now.", len(hub.tunnels))
    yield gauge("relay_names_reserved", "Names that belong to a project.", len(hub.reserved))
    yield gauge("relay_links_live", "Links of agents.", len(hub.links))
    yield gauge("relay_links_leaving", "Links that finish what they carry.", len(hub.leaving))
    yield counter("relay_links_opened_total", "Links that were admitted.", counts.opened)
    yield counter("relay_links_reopened_total", "Of these, by an agent that was there before.", counts.reopened)
    yield counter("relay_links_lost_total", "Links that have ended.", _floats(counts.lost), "reason")
    yield counter("relay_links_refused_total", "Hellos and keys that were refused.", _floats(counts.refused), "code")
    trips = round_trips(link.session for link in hub.links.values())
    values = {f"{one:g}": _quantile(trips, one) for one in QUANTILES}
    yield gauge("relay_link_round_trip_seconds", "Round trips by their last pings.", values, "quantile")


def _flow(node: Node) -> Iterator[Metric]:
    found = look(link.session for link in node.hub.sessions())
    links = {"in": float(found.sessions_stalled_sent), "out": float(found.sessions_stalled_received)}
    streams = {"in": float(found.stalled_sent), "out": float(found.stalled_received)}
    yield gauge("relay_links_stalled", "Links whose window is used up.", links, "direction")
    yield gauge("relay_streams_open", "Streams open on all links.", found.streams)
    yield gauge("relay_streams_stalled", "Streams whose window is used up.", streams, "direction")
    yield gauge("relay_window_held_bytes", "From agents, not taken by visitors yet.", found.held)
    yield gauge("relay_outbox_bytes", "Waiting to be sent to agents.", found.waiting)
    yield gauge("relay_credit_given_bytes", "What agents may still send.", found.credit_given)
    yield gauge("relay_credit_left_bytes", "What agents let the relay still send.", found.credit_left)


def _connections(node: Node) -> Iterator[Metric]:
    public, agents = node.services.crowd, node.doorway
    there = {"public": float(len(public)), "agents": float(len(agents.connections))}
    refused = {"public": float(public.refused), "agents": float(agents.turned_away)}
    yield gauge("relay_connections_open", "Connections by listener.", there, "listener")
    yield counter("relay_connections_refused_total", "Connections above a bound.", refused, "listener")


# ---- what it stands on


def _key_ends(node: Node, now: float) -> dict[str, float]:
    """Seconds until the first key of each kind ends, where one does."""
    masters = node.follower.followed.masters
    links = min((link.principal.expires_at for link in node.hub.sessions()), default=math.inf)
    ends = {
        "child": links if math.isfinite(links) else None,
        "master": masters.soonest_end(Kind.MASTER, now),
        "operator": masters.soonest_end(Kind.OPERATOR, now),
    }
    return {kind: end - now for kind, end in ends.items() if end is not None}


def _registry(node: Node) -> Iterator[Metric]:
    one = node.follower.followed
    database, metering = one.registry.database, node.hub.metering
    times = {"read": database.reads.seconds, "write": database.writes.seconds}
    errors = {"read": float(database.reads.errors), "write": float(database.writes.errors)}
    silence = one.revocations.silence(one.clock())
    yield histogram("relay_registry_transaction_seconds", "Transactions of the registry.", times, "operation")
    yield counter("relay_registry_errors_total", "Transactions that failed.", errors, "operation")
    yield gauge("relay_registry_silence_seconds", "Since the registry was heard last.", silence)
    yield gauge("relay_audit_rows_waiting", "Rows of the audit not written yet.", node.journal.backlog)
    yield gauge("relay_key_uses_waiting", "Keys whose last use is not written yet.", node.bookkeeper.uses_waiting)
    yield gauge("relay_usage_rows_waiting", "Keys with usage not written yet.", len(metering.unwritten()))


def _quantile(values: list[float], share: float) -> float:
    """Of values that rise; 0 without any."""
    return values[math.ceil(share * len(values)) - 1] if values else 0.0


def _floats(counts: Mapping[str, int]) -> dict[str, float]:
    return {name: float(count) for name, count in counts.items()}
