"""One tunnel does what no neighbour wants; others keep their rate, and the relay holds no more than its windows allow.

Everything noisy, its agent and its local service too, has little claim to a processor: it would stand on machines of
its own. What is compared is how honest visitors fare beside it and beside the same processors kept busy by nobody's
traffic; below `FLOOR` a p99 is as good as none on a machine that has two of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from relay.wire import frames
from relay.wire.errors import ResetCode
from tests.support.child import Child
from tests.support.local import LocalProcess
from tests.support.longer import CHAOS
from tests.support.processes import DOMAIN, AgentProcess, Tunnel, tunnel
from tests.support.reliability import Record
from tests.system.bulk import Bulk
from tests.system.noise import Noise, nice
from tests.system.numbers import OPEN, until
from tests.system.rawlink import RawLink
from tests.system.steady import Seen, Steady

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.alone, pytest.mark.chaos]

RATE = 100.0
WINDOW = 15.0 if CHAOS else 2.0
STOPPED = 400 if CHAOS else 60
ABORTS = 300
ASKS = 8
KEPT = 0.9
TIMES = 3.0
FLOOR = 0.010
KIB, MIB = 2**10, 2**20
LINKS, SESSION_WINDOW = 2, 64 * MIB
A_CONNECTION, A_STREAM = 64 * KIB, 16 * KIB
BUSY = "import os\nfrom tests.system.noise import nice\nnice(os.getpid())\nwhile True: pass"


@dataclass(frozen=True, slots=True)
class House:
    """An honest tunnel `t` with its steady visitors, and a noisy tunnel on the same relay."""

    tunnel: Tunnel
    steady: Steady
    noisy: str = f"noisy.{DOMAIN}"

    @contextlib.asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """Visitors that ask for everything and read nothing."""
        async with Noise("stopped", self.tunnel.port, self.noisy, STOPPED):
            yield

    @contextlib.asynccontextmanager
    async def resets(self) -> AsyncIterator[None]:
        """Visitors that reset their connections; and an agent that resets every stream, while others ask it on."""

        def refuse(link: RawLink, number: int) -> None:
            link.say(frames.encode_reset(number, ResetCode.LOCAL_RESET))

        port, relay = self.tunnel.port, self.tunnel.relay
        async with (
            RawLink(relay.agents_port, relay.key_file.read_text().strip(), "resetting", refuse) as link,
            Noise("aborts", port, self.noisy, ABORTS) as aborts,
            Noise("asks", port, f"resetting.{DOMAIN}", ASKS) as asks,
        ):
            yield
            assert min(await aborts.done(), await asks.done()) > ABORTS // 4
            assert not link.ended.is_set()

    @contextlib.asynccontextmanager
    async def full_rate(self) -> AsyncIterator[None]:
        """A download and an upload as fast as they go."""
        window = (0.5, WINDOW)
        async with contextlib.AsyncExitStack() as stack:
            for way in ("down", "up"):
                bulk = await stack.enter_async_context(Bulk(way, self.tunnel.port, self.noisy, window))
                nice(bulk.pid)
            yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """All of it, for all tests here."""
    async with (
        LocalProcess() as honest,
        LocalProcess() as noisy,
        tunnel(honest.port, "t") as t,
        AgentProcess(noisy.port, relay_port=t.relay.agents_port, key_file=t.relay.key_file, subdomain="noisy") as agent,
        Steady(t.port, t.host, RATE) as steady,
    ):
        await agent.established()
        nice(noisy.pid)
        nice(agent.pid)
        yield House(t, steady)


async def beside_nobody(house: House) -> Seen:
    """How the honest fare while the processors are busy with nobody's traffic."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(Child([sys.executable, "-c", BUSY], name="busy"))
        return await house.steady.seconds(WINDOW)


def judge(beside: Seen, alone: Seen) -> tuple[bool, str]:
    """Whether the honest were served as they should be, and the figures."""
    allowed = TIMES * max(alone.p99, FLOOR)
    held = not beside.failed and beside.in_time >= KEPT and beside.p99 <= allowed
    ratio = beside.p99 / alone.p99
    figures = f"p99 {1000 * beside.p99:.1f} ms, alone {1000 * alone.p99:.1f} ms, ratio {ratio:.1f}"
    return held, f"{figures}; {100 * beside.in_time:.1f} % in time, failed {beside.failed or 'none'}"


def counts(beside: Seen, alone: Seen) -> dict[str, float]:
    """The same as numbers."""
    return {"p99_s": beside.p99, "p50_s": beside.p50, "alone_p99_s": alone.p99, "asked": beside.asked}


ASKED = (
    f"the others keep 90 % of their rate, without an error, and p99 ≤ 3 × that beside idle work (at least {FLOOR} s)"
)


async def test_others_beside_all_kinds_of_noise(house: House, record: Record) -> None:
    """Readers that stopped, floods of resets and transfers at full rate, all at once; then nothing of it is left."""
    relay = house.tunnel.relay
    alone = await beside_nobody(house)
    before = relay.rss()
    async with house.stopped(), house.resets(), house.full_rate():
        beside = await house.steady.seconds(WINDOW)
        grown = relay.rss() - before
    held, seen = judge(beside, alone)
    record(name="noisy neighbours, all kinds at once", asked=ASKED, seen=seen, ok=held, counts=counts(beside, alone))
    # Two links of the noisy agent; besides what any connection and any stream may cost.
    allowed = LINKS * SESSION_WINDOW + (STOPPED + ABORTS) * (A_CONNECTION + A_STREAM)
    record(
        name="noisy neighbours, memory of the relay",
        asked="grows by no more than the windows of the noisy agent's links, and 80 KiB a visitor",
        seen=f"{grown / MIB:.1f} MiB of {allowed / MIB:.0f} allowed",
        ok=grown <= allowed,
        counts={"grown_bytes": grown, "allowed_bytes": allowed},
    )


@pytest.mark.skipif(not CHAOS, reason="the short version is the test above")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["stopped", "resets", "full_rate"])
async def test_others_beside_one_kind_of_noise(house: House, record: Record, kind: str) -> None:
    """No kind hides behind another; and a second wave of it costs no more memory than the first."""
    relay = house.tunnel.relay
    alone = await beside_nobody(house)
    sizes: list[int] = []
    for _ in range(2):
        async with getattr(house, kind)():
            beside = await house.steady.seconds(WINDOW)
            sizes.append(relay.rss())
        await asyncio.sleep(0)
    held, seen = judge(beside, alone)
    name = f"noisy neighbours, {kind.replace('_', ' ')}"
    record(name=name, asked=ASKED, seen=seen, ok=held, counts=counts(beside, alone))
    first, second = sizes
    record(
        name=f"{name}, memory of a second wave",
        asked="as after the first, within 8 MiB",
        seen=f"{first / MIB:.0f} MiB, then {second / MIB:.0f} MiB",
        ok=second <= first + 8 * MIB,
        counts={"first_bytes": first, "second_bytes": second},
    )


async def test_nothing_of_the_noise_is_left(house: House) -> None:
    """Once it is over the relay has no exchange, stream or visitor of it any more."""
    await house.steady.stop()
    await until(house.tunnel.relay, dict.fromkeys(OPEN, 0), 20)
