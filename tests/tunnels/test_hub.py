"""Which names are alive and over which links; which requests wait for an agent to come back, how long and how many."""

from __future__ import annotations

import asyncio

import pytest

from relay.keys.scopes import Scope
from relay.mux.session import Session
from relay.tunnels.admission import Principal
from relay.tunnels.hold import HoldBounds
from relay.tunnels.hub import CHOICE_SPAN, LOAD_SPAN, LOAD_STEP, Hub, Link, Tunnel
from relay.wire.errors import AwayCode
from tests.mux.ends import Side
from tests.support.carriers import pair
from tests.support.clock import virtual
from tests.tunnels.agents import a_metering


def a_session() -> Session:
    one, _ = pair()
    side = Side(one, opener=True)
    side.session.established = True
    return side.session


def a_link(*names: str, instance: str = "a", slot: int = 0, generation: int = 1, project: str = "p") -> Link:
    return Link(a_session(), instance, slot, generation, Principal(project, f"key of {project}"), names or ("demo",))


class Waiting:
    """`Waiter` that remembers; may do something when it hears."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.given_up = 0

    def on_ready(self, link: Link) -> None:
        assert self.link is None
        self.link = link

    def on_given_up(self) -> None:
        self.given_up += 1


def a_hub(
    seconds: float = 10.0, per_name: int = 256, in_all: int = 1000
) -> tuple[Hub, list[tuple[str, tuple[str, ...]]]]:
    reports: list[tuple[str, tuple[str, ...]]] = []
    bounds = HoldBounds(seconds, per_name, in_all)
    hub = Hub(bounds, a_metering(), lambda event, names, _: reports.append((event, names)))
    return hub, reports


# ---- names and links


@virtual
async def test_a_name_lives_from_its_first_link_to_its_last() -> None:
    """Links come and go; the name is reported up and down once, and is known ever after."""
    hub, reports = a_hub()
    assert not hub.known("demo")
    first, second = a_link(slot=0), a_link(slot=1)
    hub.attach(first)
    hub.attach(second)
    assert hub.tunnels["demo"].links == [first, second]
    hub.detach(first)
    assert hub.tunnels["demo"].choose() is second
    hub.detach(second)
    hub.detach(second)
    assert hub.tunnels == {}
    assert hub.links == {}
    assert hub.known("demo")
    assert reports == [("agent_up", ("demo",)), ("agent_down", ("demo",))]


@virtual
async def test_links_may_serve_different_names() -> None:
    """Each name has the links that claimed it, and goes down by itself."""
    hub, reports = a_hub()
    one, two = a_link("x", "y", slot=0), a_link("y", "z", slot=1)
    hub.attach(one)
    hub.attach(two)
    assert {name: tunnel.links for name, tunnel in hub.tunnels.items()} == {"x": [one], "y": [one, two], "z": [two]}
    hub.detach(one)
    assert sorted(hub.tunnels) == ["y", "z"]
    assert reports[-1] == ("agent_down", ("x",))


@virtual
async def test_rivals_are_other_agents_with_the_same_name() -> None:
    """Another instance is a rival for the names that it has; the same instance never is."""
    hub, _ = a_hub()
    hub.attach(a_link("x", "y", instance="a"))
    assert [tunnel.name for tunnel in hub.rivals(a_link("y", "z", instance="b"))] == ["y"]
    assert hub.rivals(a_link("x", "y", instance="a", slot=1)) == []
    assert hub.rivals(a_link("z", instance="b")) == []


@virtual
async def test_an_agent_of_another_project_is_never_the_same_agent() -> None:
    """Instances are chosen by agents: one that calls itself as another project's does is a rival, and no twin."""
    hub, _ = a_hub()
    holder = a_link("x", instance="a", project="p")
    hub.attach(holder)
    stranger = a_link("x", instance="a", project="q", generation=9)
    assert [tunnel.name for tunnel in hub.rivals(stranger)] == ["x"]
    assert hub.twin(stranger) is None
    elsewhere = a_link("z", instance="a", project="q", generation=9)
    hub.attach(elsewhere)
    hub.detach(elsewhere)
    assert hub.twin(a_link(instance="a", project="p")) is holder


@virtual
async def test_a_twin_is_the_same_slot_of_the_same_instance() -> None:
    """And an older link that is detached late does not take the newer one's place away."""
    hub, _ = a_hub()
    old = a_link(slot=1, generation=1)
    hub.attach(old)
    assert hub.twin(a_link(slot=1, generation=2)) is old
    assert hub.twin(a_link(slot=0)) is None
    new = a_link(slot=1, generation=2)
    hub.detach(old)
    hub.attach(new)
    hub.detach(old)
    assert hub.twin(a_link(slot=1)) is new


# ---- which link


@virtual
async def test_a_request_takes_the_lower_slot_of_two_idle_links() -> None:
    """Ties go to the lower slot, whatever the order in which the links came; a leaving link takes nothing."""
    hub, _ = a_hub()
    high, low = a_link(slot=1), a_link(slot=0)
    hub.attach(high)
    hub.attach(low)
    tunnel = hub.tunnels["demo"]
    assert tunnel.choose() is low
    low.session.leaving = True
    assert tunnel.choose() is high
    high.session.leaving = True
    assert tunnel.choose() is None


@virtual
async def test_a_request_takes_the_link_that_moves_less() -> None:
    """Bytes moved of late, and bytes that wait, count; what moved long ago does not."""
    hub, _ = a_hub()
    low, high = a_link(slot=0), a_link(slot=1)
    hub.attach(low)
    hub.attach(high)
    tunnel = hub.tunnels["demo"]
    await asyncio.sleep(1.0)
    assert tunnel.choose() is low
    low.session.window.received += 4 * LOAD_STEP
    await asyncio.sleep(CHOICE_SPAN)
    assert tunnel.choose() is high
    await asyncio.sleep(LOAD_SPAN)
    assert tunnel.choose() is high
    for _ in range(3):
        await asyncio.sleep(10.0)
        tunnel.choose()
    assert tunnel.choose() is low
    low.session.outbox.size += 2 * LOAD_STEP
    await asyncio.sleep(CHOICE_SPAN)
    assert tunnel.choose() is high
    low.session.outbox.size = 0
    high.session.outbox.moved += 4 * LOAD_STEP
    await asyncio.sleep(CHOICE_SPAN)
    assert tunnel.choose() is low


@virtual
async def test_little_traffic_stays_together() -> None:
    """Below a step of load the lower slot keeps being chosen, so that small exchanges share messages."""
    hub, _ = a_hub()
    low, high = a_link(slot=0), a_link(slot=1)
    hub.attach(low)
    hub.attach(high)
    for _ in range(20):
        assert hub.tunnels["demo"].choose() is low
        low.session.outbox.moved += LOAD_STEP // 50
        await asyncio.sleep(0.01)


async def two_links() -> tuple[Hub, Tunnel, Link, Link]:
    """(the hub, its tunnel, the link that was chosen just now, another one of a higher slot)."""
    hub, _ = a_hub()
    low, high = a_link(slot=1), a_link(slot=2)
    hub.attach(low)
    hub.attach(high)
    tunnel = hub.tunnels["demo"]
    await asyncio.sleep(1.0)
    assert tunnel.choose() is low
    return hub, tunnel, low, high


@virtual
async def test_requests_of_one_moment_share_a_link() -> None:
    """Whatever it moves meanwhile; then loads are compared again."""
    _, tunnel, low, high = await two_links()
    low.session.window.received += 4 * LOAD_STEP
    await asyncio.sleep(0.9 * CHOICE_SPAN)
    assert tunnel.choose() is low
    await asyncio.sleep(0.2 * CHOICE_SPAN)
    assert tunnel.choose() is high


@pytest.mark.parametrize("how", ["leaves", "is detached", "is lost"])
@virtual
async def test_a_link_that_goes_is_chosen_no_more_from_that_moment(how: str) -> None:
    """Another one takes the next request, though the choice was made just now."""
    hub, tunnel, low, high = await two_links()
    if how == "leaves":
        low.session.leaving = True
    elif how == "is detached":
        hub.detach(low)
    else:
        low.session.abort("lost")
    assert tunnel.choose() is high


@virtual
async def test_a_link_that_comes_is_looked_at_at_once() -> None:
    """One of a lower slot takes the next request, one of a higher slot does not."""
    hub, tunnel, low, _ = await two_links()
    hub.attach(a_link(slot=3))
    assert tunnel.choose() is low
    lowest = a_link(slot=0)
    hub.attach(lowest)
    assert tunnel.choose() is lowest


# ---- scope, and the end for good


@virtual
async def test_a_name_outside_the_scope_is_never_put_in_service() -> None:
    """Nor is any other name of that link."""
    hub, reports = a_hub()
    link = a_link("demo", "other")
    link.principal = Principal("p", "narrow", scope=Scope(("demo",)))
    with pytest.raises(ValueError, match="other is outside the scope of narrow"):
        hub.attach(link)
    assert (hub.tunnels, hub.links, reports) == ({}, {}, [])


@virtual
async def test_nobody_waits_for_an_agent_that_was_dismissed() -> None:
    """It is told why, its streams are cut, and requests are not held; another agent may come up."""
    hub, _ = a_hub()
    link = a_link()
    hub.attach(link)
    hub.dismiss(link, AwayCode.REVOKED, "revoked")
    assert link.session.ended
    assert hub.tunnels == {}
    assert hub.known("demo")
    assert not hub.hold("demo", Waiting(), 1)
    hub.attach(a_link(instance="b"))
    assert hub.known("demo")


@virtual
async def test_a_dismissed_link_leaves_the_others_of_its_name() -> None:
    """The name stays alive."""
    hub, reports = a_hub()
    one, two = a_link(slot=0), a_link(slot=1)
    hub.attach(one)
    hub.attach(two)
    hub.dismiss(one, AwayCode.REVOKED, "revoked")
    assert hub.tunnels["demo"].links == [two]
    assert reports == [("agent_up", ("demo",))]


@virtual
async def test_a_link_that_left_is_known_until_its_session_ends() -> None:
    """It serves nobody new, and whoever ends sessions still finds it."""
    hub, _ = a_hub()
    link, other = a_link(), a_link("other", instance="b")
    hub.attach(link)
    hub.attach(other)
    hub.detach(link)
    assert hub.bearers("demo") == [link]
    assert hub.bearers("other") == [other]
    assert set(hub.sessions()) == {link, other}
    hub.dismiss(link, AwayCode.REVOKED, "revoked")
    hub.detach(link)  # as whoever owns the session does when it ends
    assert hub.sessions() == [other]
    assert hub.bearers("demo") == []


@virtual
async def test_a_reserved_name_is_known() -> None:
    """Also when no agent ever served it."""
    hub, _ = a_hub()
    hub.reserved["kept"] = "p"
    assert hub.known("kept")
    assert not hub.hold("kept", Waiting(), 1)
