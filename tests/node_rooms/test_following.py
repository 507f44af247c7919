"""What others change reaches this node's memory, and its live sessions; what this node did itself is not undone."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest

from relay.keys.forms import Kind
from relay.keys.private import PrivateKey
from relay.keys.scopes import Scope
from relay.keys.tokens import new_id
from relay.node.assemble import Node
from relay.node.projectplans import ProjectPlans
from relay.registry import Actor, NewKey, NotFound, Registry
from relay.registry.records import KeyRecord, Revoked
from relay.tunnels.admission import Principal
from relay.tunnels.hub import Link
from relay.wire.errors import AwayCode
from tests.tunnels.test_hub import a_session


async def a_child(node: Node, registry: Registry) -> KeyRecord:
    """A key that was minted somewhere else, below this node's operator key, in the project `default`."""
    [operator] = [one for one in await registry.keys.masters() if one.kind is Kind.OPERATOR]
    actor = Actor(operator.id)
    project = await registry.projects.default(actor)
    new = NewKey(Kind.CHILD, new_id(Kind.CHILD), project.id, operator.id, expires_at=node.office.now() + 3600)
    return await registry.keys.mint(actor, new)


def live_link(node: Node, record: KeyRecord, name: str = "demo") -> Link:
    """A session by that key, in service."""
    principal = Principal(record.project_id or "", record.id, expires_at=record.expires_at or math.inf)
    link = Link(a_session(), "i", 0, 1, principal, (name,))
    node.hub.reserved[name] = principal.project
    node.hub.attach(link)
    return link


async def test_a_revocation_elsewhere_cuts_here(node: Node, other: Registry) -> None:
    """At the next poll: the session ends, its names are not waited for, and the key is refused from then on."""
    record = await a_child(node, other)
    link = live_link(node, record)
    await node.follower.poll()
    assert not link.session.ended
    await other.keys.revoke(Actor(record.parent_id or ""), record.id, cascade=False)
    await node.follower.poll()
    assert link.session.ended
    assert node.hub.tunnels == {}
    assert node.office.live.tunnels() == []


async def test_a_revoked_master_key_is_known_to_be_revoked(node: Node, other: Registry) -> None:
    """Whether it was revoked here, elsewhere, or before the node started."""
    [operator] = await other.keys.masters()
    key = PrivateKey.generate(Kind.MASTER)
    project = await other.projects.default(Actor(operator.id))
    await other.keys.mint(Actor(operator.id), NewKey(Kind.MASTER, key.id, project.id, operator.id, key.public))
    assert node.office.keyring.public_of(key.id) is None
    await node.follower.poll()
    known = node.office.keyring.public_of(key.id)
    assert known is not None
    assert known.state(node.office.now()) == "valid"
    await other.keys.revoke(Actor(operator.id), key.id, cascade=True)
    await node.follower.poll()
    known = node.office.keyring.public_of(key.id)
    assert known is not None
    assert (known.state(node.office.now()), known.revoked_by) == ("revoked", operator.id)


@pytest.mark.parametrize("known_before", [True, False])
@pytest.mark.parametrize("way", ["revoked", "expired"])
async def test_a_key_that_was_ended_here_is_not_valid_again(
    node: Node, other: Registry, monkeypatch: pytest.MonkeyPatch, way: str, known_before: bool
) -> None:
    """Revoked or replaced: by a list of keys that was read before that, and arrives after it."""
    registry = node.office.registry
    [operator] = await other.keys.masters()
    actor = Actor(operator.id)
    project = await other.projects.default(actor)
    key, newer = PrivateKey.generate(Kind.MASTER), PrivateKey.generate(Kind.MASTER)
    await other.keys.mint(actor, NewKey(Kind.MASTER, key.id, project.id, operator.id, key.public))
    read = registry.keys.masters

    async def slow() -> Sequence[KeyRecord]:
        records = await read()
        if way == "revoked":
            done = await registry.keys.revoke(actor, key.id, cascade=False)
            node.office.live.on_revoked(done.ids, done.by, done.at)
        else:
            rotated = await registry.keys.rotate(actor, key.id, newer.public, newer.id, 0)
            node.office.keyring.learn(rotated.old)
        return records

    if known_before:
        await node.follower.poll()
    monkeypatch.setattr(registry.keys, "masters", slow)
    await node.follower._read_keys()
    monkeypatch.undo()
    for _ in range(2):
        known = node.office.keyring.public_of(key.id)
        assert known is not None
        assert known.state(node.office.now()) == way
        assert known.successor_id == (newer.id if way == "expired" else None)
        await node.follower.poll()


async def test_revoked_keys_are_forgotten_once_they_have_expired(
    node: Node, other: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But nothing that was revoked here while the list of the others was read."""
    revocations, live = node.follower.followed.revocations, node.office.live
    record = await a_child(node, other)
    done = await other.keys.revoke(Actor(record.parent_id or ""), record.id, cascade=False)
    live.on_revoked((*done.ids, "mtk_child_expired00000"), done.by, done.at)
    alive = node.office.registry.changes.revoked_alive

    async def slow(now: float) -> list[Revoked]:
        found = await alive(now)
        live.on_revoked(["mtk_child_meanwhile000"], "", now)
        return found

    monkeypatch.setattr(node.office.registry.changes, "revoked_alive", slow)
    await node.follower._learn_alive()
    assert revocations.known() == {record.id, "mtk_child_meanwhile000"}


async def test_a_clock_that_is_set_back_wakes_no_revoked_key(node: Node, other: Registry) -> None:
    """What was revoked is remembered for a week after it expired, and forgotten then."""
    follower, revocations = node.follower, node.follower.followed.revocations
    record = await a_child(node, other)
    await other.keys.revoke(Actor(record.parent_id or ""), record.id, cascade=False)
    assert record.expires_at is not None
    for after, known in ((6 * 86_400, {record.id}), (8 * 86_400, set())):
        follower.followed = replace(follower.followed, now=partial(float, record.expires_at + after))
        await follower._learn_alive()
        assert revocations.known() == known


async def test_names_follow(node: Node, other: Registry) -> None:
    """Reserved, moved and released elsewhere: known here, and the agent of the project that lost it is sent away."""
    [operator] = await other.keys.masters()
    actor = Actor(operator.id)
    one = await other.projects.default(actor)
    key = PrivateKey.generate(Kind.MASTER)
    two, _ = await other.projects.create(actor, "two", NewKey(Kind.MASTER, key.id, None, operator.id, key.public))
    await other.subdomains.reserve(actor, "demo", one.id)
    await node.follower.poll()
    assert node.hub.reserved == {"demo": one.id}
    link = live_link(node, await a_child(node, other))
    await node.follower.poll()
    assert not link.session.ended
    await other.subdomains.move(actor, "demo", two.id)
    await node.follower.poll()
    assert link.session.ended
    assert node.hub.reserved == {"demo": two.id}
    await other.subdomains.release(actor, "demo")
    await node.follower.poll()
    assert node.hub.reserved == {}
    assert not node.hub.known("demo")
    with pytest.raises(NotFound):
        await other.subdomains.release(actor, "demo")


async def test_a_claim_of_a_name_costs_no_look_at_the_keys(
    node: Node, other: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names have a sequence of their own, and keys theirs."""
    [operator] = await other.keys.masters()
    project = await other.projects.default(Actor(operator.id))
    await node.follower.poll()

    async def unwanted() -> None:
        raise AssertionError("nobody should ask")

    monkeypatch.setattr(node.follower, "_read_keys", unwanted)
    await other.subdomains.reserve(Actor(operator.id), "demo", project.id)
    await node.follower.poll()
    assert node.hub.reserved == {"demo": project.id}
    monkeypatch.undo()
    monkeypatch.setattr(node.follower, "_read_names", unwanted)
    key = PrivateKey.generate(Kind.MASTER)
    await other.keys.mint(Actor(operator.id), NewKey(Kind.MASTER, key.id, project.id, operator.id, key.public))
    await node.follower.poll()
    assert node.office.keyring.public_of(key.id) is not None


async def test_plans_follow(node: Node, other: Registry) -> None:
    """Given and taken elsewhere, and those that were there at the start: whoever bounds by them is told."""
    [operator] = await other.keys.masters()
    actor, plans = Actor(operator.id), node.follower.followed.plans
    key = PrivateKey.generate(Kind.MASTER)
    made, _ = await other.projects.create(
        actor, "one", NewKey(Kind.MASTER, key.id, None, operator.id, key.public), "hobby"
    )
    hobby = plans.known["hobby"]
    told: list[tuple[str, Scope]] = []
    plans.on_changed.append(lambda project, limits: told.append((project, limits)))
    await node.follower.load()
    assert (told, plans.limits_of_project(made.id)) == ([(made.id, hobby)], hobby)
    for plan, limits in ((None, Scope()), ("hobby", hobby)):
        await other.projects.give_plan(actor, made.id, plan)
        await node.follower.poll()
        assert (told[-1], plans.limits_of_project(made.id)) == ((made.id, limits), limits)
    await other.projects.delete(actor, made.id)
    await node.follower.poll()
    assert (plans.given, len(told)) == ({}, 4)


async def test_a_plan_that_was_given_here_meanwhile_is_newer(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Than what this node read of the registry at the same time."""
    plans = node.follower.followed.plans
    plans.changed("mine", "hobby")
    plans.changed("theirs", "hobby")

    async def slow() -> dict[str, str]:
        plans.changed("fresh", "hobby")
        plans.changed("mine", None)
        return {"mine": "hobby"}

    monkeypatch.setattr(node.office.registry.projects, "plans", slow)
    await node.follower._read_plans()
    assert plans.given == {"fresh": "hobby"}


def test_a_plan_that_the_settings_do_not_know(caplog: pytest.LogCaptureFixture) -> None:
    """Its projects have the default plan, and the operator is told, once."""
    for default, limits, instead in ((None, Scope(), "no limits"), ("small", Scope(rate=1), "those of the plan small")):
        plans = ProjectPlans({"small": Scope(rate=1)}, default)
        caplog.clear()
        for project in ("one", "two"):
            plans.changed(project, "gone")
            assert plans.limits_of_project(project) == limits
        [record] = caplog.records
        assert "the plan gone" in record.message
        assert f"their limits are {instead}" in record.message
        assert plans.limits_of_project("three") == limits


async def test_what_happened_here_meanwhile_is_newer(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names claimed and moved by this node while it read the registry stay as they are."""
    names = node.office.registry.subdomains
    node.hub.reserved.update(mine="one", theirs="one")

    async def slow() -> dict[str, str]:
        node.hub.reserved.update(fresh="one", mine="two")
        return {"mine": "one"}

    monkeypatch.setattr(names, "owners", slow)
    await node.follower._read_names()
    assert node.hub.reserved == {"fresh": "one", "mine": "two"}


async def test_a_key_that_expires_ends_its_session(node: Node, other: Registry) -> None:
    """Its requests wait for the agent, which may be back with a new key."""
    link = live_link(node, await a_child(node, other))
    live = node.follower.followed.live
    live.expire(node.office.now() + 3000)
    assert not link.session.ended
    live.expire(node.office.now() + 4000)
    assert link.session.ended
    assert node.hub.known("demo")


async def test_a_tunnel_that_is_closed_stays_away(node: Node, other: Registry) -> None:
    """Its agent is told, and nobody waits for it."""
    link = live_link(node, await a_child(node, other))
    node.office.live.close("demo", "closed by the operator")
    node.office.live.close("nothing", "closed by the operator")
    assert link.session.closed_with is AwayCode.CLOSED
    assert node.hub.tunnels == {}


async def test_a_node_whose_registry_is_gone_is_deaf_until_it_is_back(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on polling whatever went wrong, and hears again."""
    revocations = node.follower.followed.revocations
    clock = node.follower.followed.clock
    monkeypatch.setattr("relay.node.follower.POLL_EVERY", 0.001)
    position = node.office.registry.changes.position
    asked = asyncio.Event()

    async def broken() -> None:
        asked.set()
        raise OSError("a defect")

    monkeypatch.setattr(node.office.registry.changes, "position", broken)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    task = asyncio.ensure_future(node.follower.run())
    await asyncio.wait_for(asked.wait(), 5)
    revocations._heard = -math.inf
    assert revocations.deaf(clock())
    monkeypatch.setattr(node.office.registry.changes, "position", position)
    async with asyncio.timeout(5):
        while revocations.deaf(clock()):
            await asyncio.sleep(0.001)
    task.cancel()
