"""The pacer: exact over any ten seconds, smooth, fair, in order; and it costs nothing while nothing waits."""

from __future__ import annotations

import asyncio
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.limits.pacing import TURN, Pacer
from relay.limits.ways import Band
from tests.limits.lanes import Fed, FedLater, most_and_least, pacer, passed_since, way
from tests.support.clock import run_virtual, virtual
from tests.support.longer import CHAOS
from tests.support.pattern import pieces, whole

EXAMPLES = settings(max_examples=200 if CHAOS else 8)
RATES = st.sampled_from((1_000, 6_000, 20_000, 125_000, 1_250_000, 5_000_000))
PIECES = st.sampled_from((100, 1_400, 4_096, 16_384, 65_536))
SOURCES = st.lists(st.tuples(PIECES, st.booleans()), min_size=1, max_size=6)


def lane_of(owner: Pacer, bands: tuple[Band, ...], source: tuple[int, bool]) -> Fed:
    piece, later = source
    fastest = min(band.rate for band in bands)
    return (FedLater if later else Fed)(owner, way(*bands), max(piece, int(fastest / 1000)))


async def run(lanes: list[Fed], seconds: float) -> float:
    """Lets them run; the time at the end."""
    for lane in lanes:
        lane.fill()
    await asyncio.sleep(seconds)
    return asyncio.get_running_loop().time()


@pytest.mark.chaos
@EXAMPLES
@given(RATES, SOURCES, st.none() | st.integers(0, 9))
def test_any_ten_seconds_hold_ten_seconds_worth(rate: int, sources: list[tuple[int, bool]], late: int | None) -> None:
    """Lanes that always have data pass, together and over any 10 s, what the limit says within 5 %; late timers too."""

    async def main() -> None:
        owner, band = pacer(None if late is None else random.Random(late)), Band(rate)
        lanes = [lane_of(owner, (band,), source) for source in sources]
        until = await run(lanes, 13.0)
        passes = sorted(one for lane in lanes for one in lane.passes)
        most, least = most_and_least(passes, 10.0, until)
        assert 9.5 * rate <= least <= most <= 10.5 * rate

    run_virtual(main())


@pytest.mark.chaos
@EXAMPLES
@given(RATES, st.lists(st.tuples(PIECES, st.booleans()), min_size=2, max_size=8), st.integers(0, 9))
def test_streams_of_one_tunnel_share_alike(rate: int, sources: list[tuple[int, bool]], seed: int) -> None:
    """Whatever the pieces that they write, and whenever they began, lanes that always have data get the same."""

    async def main() -> None:
        owner, band, chance = pacer(), Band(rate), random.Random(seed)
        lanes = [lane_of(owner, (band,), source) for source in sources]
        for lane in lanes:
            lane.fill()
            await asyncio.sleep(chance.choice((0.0, 0.004, 0.3)))
        await asyncio.sleep(0.3)  # whoever comes first has the burst
        start = asyncio.get_running_loop().time()
        await asyncio.sleep(10.0)
        shares = [passed_since(lane, start) for lane in lanes]
        assert max(shares) <= 1.05 * min(shares), shares

    run_virtual(main())


@pytest.mark.chaos
@EXAMPLES
@given(st.data())
def test_keys_share_what_is_above_them(data: st.DataObject) -> None:
    """Below one master key each child key gets an equal part, or less where its limit is lower; others get the rest."""
    rate = 1_000_000
    limits = data.draw(st.lists(st.sampled_from((math.inf, 50_000, 200_000, 400_000)), min_size=2, max_size=4))
    crowds = [data.draw(st.integers(1, 4)) for _ in limits]

    async def main() -> None:
        owner, master = pacer(), Band(rate)
        keys = [
            [Fed(owner, way(master, band), 16_384) for _ in range(n)]
            for band, n in zip(map(Band, limits), crowds, strict=True)
        ]
        await run([lane for lanes in keys for lane in lanes], 0.5)
        start = asyncio.get_running_loop().time()
        await asyncio.sleep(10.0)
        for lanes, fair in zip(keys, max_min(rate, limits), strict=True):
            got = [passed_since(lane, start) for lane in lanes]
            assert sum(got) == pytest.approx(10 * fair, rel=0.05)
            assert max(got) <= 1.05 * min(got)

    run_virtual(main())


def max_min(rate: float, limits: list[float]) -> list[float]:
    """What each gets of `rate` when nobody gets more than its limit, and nobody less than another who wants more."""
    shares = [0.0] * len(limits)
    left = rate
    for done, (limit, at) in enumerate(sorted((limit, at) for at, limit in enumerate(limits))):
        shares[at] = min(limit, left / (len(limits) - done))
        left -= shares[at]
    return shares


@pytest.mark.chaos
@EXAMPLES
@given(
    st.sampled_from((3_000, 125_000, 2_000_000)),
    st.lists(st.tuples(st.integers(1, 40_000), st.sampled_from((0.0, 0.001, 0.05, 0.4))), min_size=1, max_size=30),
    st.integers(1, 3),
)
def test_nothing_is_lost_or_doubled(rate: int, writes: list[tuple[int, float]], neighbours: int) -> None:
    """Writes of any size at any time arrive whole and in order, beside others, and then nothing waits any more."""

    async def main() -> None:
        owner, band = pacer(), Band(rate)
        lanes = [Fed(owner, way(band), 1) for _ in range(1 + neighbours)]
        for lane in lanes:
            lane.left = 0
        for number, (size, pause) in enumerate(writes):
            lane = lanes[number % len(lanes)]
            lane.write(whole(size, start=lane.written))
            await asyncio.sleep(pause)
        await asyncio.sleep(1.0 + sum(size for size, _ in writes) / rate)
        assert [lane.passed for lane in lanes] == [lane.written for lane in lanes]
        assert_idle(owner, band)

    run_virtual(main())


def assert_idle(owner: Pacer, *bands: Band) -> None:
    """Nothing waits, no timer is set, and no band keeps anything back."""
    assert not owner.lanes
    assert owner._timer is None
    assert all(not band.waiting for band in bands)


@virtual
async def test_a_message_below_the_rate_passes_in_the_same_call() -> None:
    """Where nobody waits and the limit has room nothing is delayed, and no timer is set."""
    owner, band = pacer(), Band(125_000)
    lane = Fed(owner, way(band), 1)
    for _ in range(100):
        assert lane.write(whole(1_000, start=lane.written))
        assert lane.passed == lane.written
        assert_idle(owner, band)
        await asyncio.sleep(0.01)


@virtual
async def test_a_neighbour_of_a_full_key_passes_at_once() -> None:
    """A key at its own limit holds no message of another key back, while the project's limit has room."""
    owner, project, full, other = pacer(), Band(1_000_000), Band(100_000), Band(math.inf)
    greedy, modest = Fed(owner, way(project, full), 65_536), Fed(owner, way(project, other), 1)
    modest.left = 0
    greedy.fill()
    for _ in range(200):
        await asyncio.sleep(0.0137)
        modest.write(whole(700, start=modest.written))
        assert modest.passed == modest.written


@virtual
async def test_a_small_message_beside_bulk_waits_a_turn() -> None:
    """Of a limit that is used up, a message below its share is held back no longer than to the next turn."""
    owner, band = pacer(), Band(1_000_000)
    bulk, small = Fed(owner, way(band), 65_536), Fed(owner, way(band), 1)
    small.left = 0
    bulk.fill()
    for _ in range(200):
        await asyncio.sleep(0.0513)
        asked = asyncio.get_running_loop().time()
        small.write(whole(900, start=small.written))
        await asyncio.sleep(1.5 * TURN)
        assert small.passed == small.written
        assert small.passes[-1][0] - asked <= TURN + 1e-6


@virtual
async def test_the_output_is_smooth() -> None:
    """After the first burst every tenth of a second brings about a tenth of the rate."""
    owner, band = pacer(), Band(1_250_000)
    lanes = [Fed(owner, way(band), 65_536) for _ in range(3)]
    start = asyncio.get_running_loop().time()
    await run(lanes, 5.0)
    buckets = [0] * 50
    for lane in lanes:
        for time, size in lane.passes:
            buckets[min(int((time - start) * 10), 49)] += size
    assert all(0.85 * 125_000 <= one <= 1.15 * 125_000 for one in buckets[2:]), buckets


@virtual
async def test_a_stalled_lane_holds_nobody_back() -> None:
    """What it cannot use goes to the others, and when it takes bytes again it has its turn again."""
    owner, band = pacer(), Band(200_000)
    stuck, other = Fed(owner, way(band), 16_384), Fed(owner, way(band), 16_384)
    stuck.blocked = True
    until = await run([stuck, other], 10.0)
    assert passed_since(other, until - 9.9) >= 0.95 * 9.9 * 200_000
    before = stuck.passed
    assert before <= 20_000 + 16_384
    stuck.blocked = False
    owner.resume(stuck)
    await asyncio.sleep(10.0)
    assert stuck.passed - before == pytest.approx(1_000_000, rel=0.05)


@virtual
async def test_a_lane_that_resumes_on_a_free_way_passes_at_once() -> None:
    """What was held back by the link alone does not wait for a turn as well."""
    owner, band = pacer(), Band(10_000_000)
    lane = Fed(owner, way(band), 1)
    lane.left = 0
    lane.blocked = True
    lane.write(whole(1_000))
    assert not lane.write(whole(5_000, start=1_000))
    lane.blocked = False
    owner.resume(lane)
    assert lane.passed == 6_000
    assert_idle(owner, band)


@virtual
async def test_what_is_dropped_is_given_back() -> None:
    """A lane that is dropped passes nothing more, its part goes to the others, and the timer ends with the last."""
    owner, band = pacer(), Band(100_000)
    gone, stays = Fed(owner, way(band), 65_536), Fed(owner, way(band), 65_536)
    await run([gone, stays], 1.0)
    owner.drop(gone)
    passed = gone.passed
    start = asyncio.get_running_loop().time()
    await asyncio.sleep(10.0)
    assert gone.passed == passed
    assert passed_since(stays, start) == pytest.approx(1_000_000, rel=0.03)
    owner.drop(stays)
    assert_idle(owner, band)


@virtual
async def test_a_defect_costs_one_lane_its_bytes() -> None:
    """The others are served all the same, and the defect is reported by the loop."""
    owner, band = pacer(), Band(100_000)
    told: list[str] = []

    class Broken(Fed):
        def pass_on(self, data: bytes) -> bool:
            raise RuntimeError("a defect of ours")

        def on_defect(self) -> None:
            told.append("defect")

    loop = asyncio.get_running_loop()
    reported: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    good, broken, another = Fed(owner, way(band), 4_096), Broken(owner, way(band), 4_096), Fed(owner, way(band), 4_096)
    good.fill()
    owner.add(broken, whole(4_096))
    another.fill()
    await asyncio.sleep(5.0)
    assert told == ["defect"]
    assert [str(one["exception"]) for one in reported] == ["exchanges failed (1 sub-exception)"]
    assert good.passed + another.passed >= 0.95 * 500_000
    assert broken not in owner.lanes


@virtual
async def test_a_lane_follows_a_change_of_the_limit() -> None:
    """A lower limit, a higher one and none at all count at once for what already runs."""
    owner, band = pacer(), Band(100_000)
    leads = way(band)
    lane = FedLater(owner, leads, 16_384)
    lane.fill()
    loop = asyncio.get_running_loop()
    await asyncio.sleep(5.0)
    for rate in (10_000, 400_000):
        band.set_rate(rate, loop.time())
        leads.lead((band,))
        await asyncio.sleep(0.5)
        start = loop.time()
        await asyncio.sleep(10.0)
        assert passed_since(lane, start) == pytest.approx(10 * rate, rel=0.05)
    lane.left = 1_000_000
    band.set_rate(math.inf, loop.time())
    leads.lead((band,))
    await asyncio.sleep(2 * TURN)
    assert lane.passed == lane.written
    assert lane.left == 0
    assert_idle(owner, band)


@virtual
async def test_many_lanes_at_a_low_rate_all_come_to_their_turn() -> None:
    """Fifty streams at 20 kB/s get a fiftieth each, in small pieces, within 5 % over 10 s."""
    owner, band = pacer(), Band(20_000)
    lanes = [Fed(owner, way(band), 4_096) for _ in range(50)]
    until = await run(lanes, 10.5)
    got = [passed_since(lane, until - 10.0) for lane in lanes]
    assert sum(got) == pytest.approx(200_000, rel=0.05)
    assert max(got) <= 1.05 * min(got) + 25


@virtual
async def test_little_pieces_cost_what_they_hold() -> None:
    """Pieces of two bytes wait joined, and pass whole and in order."""
    owner = pacer()
    lane = Fed(owner, way(Band(5_000)), 2)
    lane.left = 0
    for _ in range(10_000):
        lane.write(b"".join(pieces(2, start=lane.written)))
    assert len(lane._parts) <= 2 + lane.queued // 4096
    await asyncio.sleep(5)
    assert lane.passed == 20_000
