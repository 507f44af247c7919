"""What was used in a month: added up by key, told for projects, for master keys with all below them, for one key."""

from __future__ import annotations

import secrets

from relay.keys.forms import Kind, new_id
from relay.registry import UsageRow, UsageSum, UsageTotal
from tests.registry.world import World, a_key

NOVEMBER, OCTOBER = "2026-11", "2026-10"


async def test_usage_adds_up(here: World) -> None:
    """By project, key and month, also within one batch, also beyond 32 bits."""
    usage = here.registry.usage
    rows = [
        UsageRow("p", "k", NOVEMBER, 1, 2, 3), UsageRow("p", "k", NOVEMBER, 1, 2**40, 0),
        UsageRow("p", "k", OCTOBER, 1, 0, 0), UsageRow("p", "j", NOVEMBER, 5, 0, 0),
        UsageRow("q", "k", NOVEMBER, 9, 9, 9),
    ]  # fmt: skip
    await usage.add(rows)
    await usage.add(rows[:1])
    await usage.add([])
    assert await usage.month(NOVEMBER, ["p"]) == [
        UsageTotal("p", "j", None, 5, 0, 0),
        UsageTotal("p", "k", None, 3, 4 + 2**40, 6),
    ]
    assert [one.key_id for one in await usage.month(NOVEMBER, ["q", "p"])] == ["k", "j", "k"]
    assert await usage.month(NOVEMBER) == await usage.month(NOVEMBER, ["p", "q"])
    assert [one.project_id for one in await usage.month(NOVEMBER, None, 1)] == ["q"]
    assert await usage.month(OCTOBER) == [UsageTotal("p", "k", None, 1, 0, 0)]
    assert await usage.month("2026-09") == await usage.month(NOVEMBER, []) == []


async def test_what_a_key_used_counts_for_all_above_it(here: World) -> None:
    """Its project and the master key; of other projects only what was asked for; of other keys what they used."""
    usage = here.registry.usage
    one, master = await here.project()
    other, other_master = await here.project("two")
    first, second, third = await here.child(master), await here.child(master), await here.child(other_master)
    direct = await here.child(here.operator, one.id)
    used = {first: 1, second: 10, direct: 100, third: 1000}
    await usage.add([UsageRow(key.project_id or "", key.id, NOVEMBER, n, 2 * n, 3 * n) for key, n in used.items()])
    assert await usage.sums(NOVEMBER, [one.id]) == {one.id: UsageSum(111, 222, 333), master.id: UsageSum(11, 22, 33)}
    everything = await usage.sums(NOVEMBER)
    assert everything.keys() == {one.id, master.id, other.id, other_master.id}
    assert everything[other.id] == everything[other_master.id] == UsageSum(1000, 2000, 3000)
    alone = await usage.sums(NOVEMBER, [one.id], [first.id, third.id, "mtk_child_000000000000"])
    assert alone.pop(first.id) == UsageSum(1, 2, 3)
    assert alone == await usage.sums(NOVEMBER, [one.id])
    assert await usage.sums(OCTOBER, None, [first.id]) == {}
    assert [each.parent_id for each in await usage.month(NOVEMBER)] == [
        other_master.id, here.operator.id, master.id, master.id
    ]  # fmt: skip


async def test_a_rotation_is_no_new_beginning(here: World) -> None:
    """What keys of one line used counts under the first of them, whichever of them it was minted with."""
    project, master = await here.project()
    before = await here.child(master)
    newest = master
    for _ in range(2):
        done = await here.registry.keys.rotate(here.by, newest.id, secrets.token_bytes(32), new_id(Kind.MASTER), 3600.0)
        assert done.record is not None
        newest = done.record
        assert newest.first == master.id
        assert await here.registry.keys.get(newest.id) == newest
    after = await here.child(newest)
    await here.registry.usage.add(
        [UsageRow(project.id, before.id, NOVEMBER, 1, 1, 1), UsageRow(project.id, after.id, NOVEMBER, 2, 2, 2)]
    )
    assert await here.registry.usage.sums(NOVEMBER) == {project.id: UsageSum(3, 3, 3), master.id: UsageSum(3, 3, 3)}
    assert (await here.registry.keys.get(master.id)).first == master.id
    another = await here.registry.keys.mint(
        here.by, a_key(Kind.MASTER, parent_id=here.operator.id, project_id=project.id)
    )
    assert another.first == another.id
