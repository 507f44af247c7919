"""What a node tells of itself: just what docs/metrics.md says, with labels whose values nobody else chooses."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.core import Metric

from relay.keys.forms import Kind
from relay.keys.scopes import Scope
from relay.node.assemble import Node
from relay.node.measuring import Measuring, requests_by_class
from relay.node.serve import LAG_SECONDS
from relay.registry.records import KeyRecord
from relay.telemetry.families import Exposition
from relay.telemetry.histograms import Histogram
from relay.telemetry.traffic import Traffic
from relay.tunnels.admission import Principal
from tests.support.metricspage import rows
from tests.tunnels.test_hub import a_link

PAGE = [row for row in rows() if row.name.startswith("relay_") and not row.name.startswith("relay_agent_")]


def measuring(node: Node, ends: float | None = None) -> Measuring:
    return Measuring(node, Histogram(LAG_SECONDS), lambda: ends, lambda: 0)


def families(node: Node, ends: float | None = None) -> dict[str, Metric]:
    """By the name that a sample has."""
    return {name_of(one): one for one in measuring(node, ends).collect()}


def name_of(family: Metric) -> str:
    return family.name + ("_total" if family.type == "counter" else "")


def values(family: Metric) -> dict[tuple[str, ...], float]:
    return {tuple(one.labels.values()): one.value for one in family.samples}


# ---- the page


async def test_the_page_and_the_code_name_the_same_metrics(node: Node) -> None:
    """In both directions: what is told is documented, with its type, and what is documented is told."""
    told = {name: family.type for name, family in families(node).items()}
    assert told == {row.name: row.type for row in PAGE}


async def test_series_have_the_labels_of_their_rows(node: Node) -> None:
    """Every sample has just the documented labels; with all conditions met, every metric has a sample."""
    node.services.traffic = Traffic(1)
    node.services.traffic.tunnel("demo")
    link = a_link()
    link.principal = Principal("p", "k", expires_at=time.time() + 60)
    node.hub.attach(link)
    told = families(node, ends=time.time() + 60)
    for row in PAGE:
        assert told[row.name].samples, row
        assert all(set(one.labels) - {"le"} == set(row.labels) for one in told[row.name].samples), row


async def test_what_always_appears_needs_no_traffic(node: Node) -> None:
    """A node that nobody has used yet tells it; what appears under conditions only is not there yet."""
    told = families(node)
    assert {row.name for row in PAGE if row.appears == "always"} == {name for name, one in told.items() if one.samples}


async def test_every_line_is_a_name_and_a_number(node: Node) -> None:
    """No sample is NaN or infinite, and none has a space in its labels: simple readers can split at spaces."""
    for line in Exposition(measuring(node)).text().decode().splitlines():
        if not line.startswith("#"):
            _, value = line.split(" ")
            assert math.isfinite(float(value))


# ---- labels are bounded


async def test_tunnels_beyond_the_cap_are_counted_together(node: Node) -> None:
    """None has a series unless the setting says so; with it the first so many, and the others under one name."""
    assert not families(node)["relay_tunnel_requests_total"].samples
    traffic = node.services.traffic = Traffic(2)
    for name in ("a", "b", "c", "d", "a"):
        traffic.tunnel(name).requests += 1
        traffic.tunnel(name).bytes_out += 10
    told = families(node)
    assert values(told["relay_tunnel_requests_total"]) == {("a",): 2, ("b",): 1, ("(others)",): 2}
    assert values(told["relay_tunnel_bytes_total"])[("(others)", "out")] == 20


def test_requests_by_class_and_error() -> None:
    """Each class and each of the relay's errors is there with 0; a status that HTTP does not know counts as other."""
    traffic = Traffic()
    fresh = requests_by_class(traffic)
    assert fresh["2xx", ""] == fresh["5xx", "agent_offline"] == 0
    traffic.requests.update({(2, ""): 3, (0, ""): 1, (9, ""): 1, (7, ""): 1, (4, "quota_exhausted"): 2})
    found = requests_by_class(traffic)
    assert (found["2xx", ""], found["none", ""], found["other", ""], found["4xx", "quota_exhausted"]) == (3, 1, 2, 2)
    assert found.keys() == fresh.keys()


# ---- values


async def test_round_trips_by_share(node: Node) -> None:
    """The middle one, the one that nine of ten do not exceed, and the longest, of those that were measured."""
    for slot, trip in enumerate((0.03, 0.01, 0.02, 0.0)):
        link = a_link(slot=slot)
        node.hub.attach(link)
        if trip:
            number = link.session.keepalive.ping(1.0)
            assert number is not None
            link.session.keepalive.on_pong(number, 1.0 + trip)
    found = values(families(node)["relay_link_round_trip_seconds"])
    assert found == {("0.5",): pytest.approx(0.02), ("0.9",): pytest.approx(0.03), ("1",): pytest.approx(0.03)}


async def test_bytes_count_while_a_stream_runs_and_once(node: Node) -> None:
    """What a link has moved and nobody has folded yet is in the sum, and folding changes nothing of it."""
    link = a_link()
    node.hub.attach(link)
    link.session.outbox.moved, link.session.window.received = 300, 70
    assert values(families(node)["relay_bytes_total"]) == {("in",): 300, ("out",): 70}
    node.usage.count()
    assert values(families(node)["relay_bytes_total"]) == {("in",): 300, ("out",): 70}
    link.session.abort("gone")
    node.hub.detach(link)
    assert values(families(node)["relay_bytes_total"]) == {("in",): 300, ("out",): 70}


async def test_seconds_until_the_first_key_and_the_certificate_end(node: Node) -> None:
    """Of child keys that links live by, of master keys that count and were not replaced; without an end: nothing."""
    assert not families(node)["relay_key_expires_seconds"].samples
    assert not families(node)["relay_certificate_expires_seconds"].samples
    now = time.time()
    for slot, end in enumerate((math.inf, now + 500, now + 900)):
        link = a_link(slot=slot)
        link.principal = Principal("p", f"k{slot}", expires_at=end)
        node.hub.attach(link)
    plain: dict[str, Any] = {"project_id": "p", "parent_id": None, "scope": Scope(), "label": "", "tunnel": None}
    record = KeyRecord("m0", Kind.MASTER, **plain, public=b"x", created_at=0.0, expires_at=now + 70)
    for one in (
        record,
        replace(record, id="m1", expires_at=now + 50, successor_id="m0"),
        replace(record, id="m2", expires_at=now + 60, revoked_at=1.0),
        replace(record, id="m3", expires_at=now - 5),
        replace(record, id="m4", expires_at=None),
    ):
        node.follower.followed.masters.learn(one)
    told = families(node, ends=now - 10)
    assert values(told["relay_key_expires_seconds"]) == {
        ("child",): pytest.approx(500, abs=5),
        ("master",): pytest.approx(70, abs=5),
    }
    assert values(told["relay_certificate_expires_seconds"]) == {(): pytest.approx(-10, abs=5)}


async def test_a_revocation_is_counted_and_its_cut_is_timed(node: Node) -> None:
    """Those from before the start are not counted; only keys by which something lived have a time."""
    link = a_link()
    link.principal = Principal("p", "lives")
    node.hub.attach(link)
    live, now = node.live, time.time()
    live.on_revoked(["lives", "idle"], "op", now)
    live.on_revoked(["old"], "op", now - 1000)
    told = families(node)
    assert values(told["relay_revocations_total"]) == {(): 2}
    assert sum(live.cut.counts) == 1
    assert 0 <= live.cut.total < 5
    assert link.session.ended


# ---- ready


async def test_a_node_that_works_is_ready(node: Node) -> None:
    """And says so as a number."""
    assert measuring(node).unready() == []
    assert values(families(node)["relay_ready"]) == {(): 1}


async def test_each_reason_is_a_line_of_its_own(node: Node) -> None:
    """Draining, memory, a registry that is silent, a signing key that was retired: all that hold are told."""
    node.services.draining, node.services.level = True, 2
    followed = node.follower.followed
    followed.revocations.heard(asyncio.get_running_loop().time() - 12)
    kid = followed.signing.key().kid
    node.office.verifier.learn({}, [kid])
    reasons = measuring(node).unready()
    assert reasons[0] == "draining"
    assert "not heard for 12 s" in reasons[1]
    assert "new requests are refused" in reasons[2]
    assert "signing key" in reasons[3]
    assert len(reasons) == 4
    assert values(families(node)["relay_ready"]) == {(): 0}
    assert values(families(node)["relay_draining"]) == {(): 1}


async def test_level_one_is_no_reason(node: Node) -> None:
    """Answers that end their connection are still answers; nobody accepted is a reason."""
    node.services.level = 1
    assert measuring(node).unready() == []
    node.services.level = 3
    assert "nobody is accepted" in measuring(node).unready()[0]
