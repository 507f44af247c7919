"""Two thousand visitors that take their time, each in its way: they are sent away when it is over, others served."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from relay.mux.crowding import PATIENCE
from tests.support.local import LocalProcess
from tests.support.longer import CHAOS
from tests.support.processes import DOMAIN, AgentProcess, RelayProcess, tunnel
from tests.support.reliability import Record
from tests.system.noise import Noise
from tests.system.numbers import nothing_left
from tests.system.slowcrowd import KINDS, Kind, SlowCrowd
from tests.system.steady import Steady

pytestmark = [pytest.mark.alone, pytest.mark.chaos, pytest.mark.timeout(300)]

COUNT = 2000 if CHAOS else 200
RATE = 100.0
# The long version keeps the relay's own patience (docs/operating.md).
HEAD, IDLE = (10.0, 60.0) if CHAOS else (1.0, 1.0)
# Below 64 bytes a second over so many seconds a body is too slow: longer than the short version takes.
SPAN = 60.0
EVERY = 1.0 if CHAOS else 0.2
SLACK = 5.0 if CHAOS else 2.5
TIME: dict[Kind, float] = {
    "head": HEAD, "body": SPAN, "halt": IDLE, "unread": IDLE, "silent": HEAD, "kept": IDLE,
}  # fmt: skip
TOLD: dict[Kind, str] = {"head": "408", "body": "408", "halt": "408", "silent": "", "kept": "200"}
TIMES = 3.0
FLOOR = 0.010
STOPPED = 100
# Who takes nothing while a window is full is cut after `PATIENCE` seconds; by then the next, who waited, fill it.
MADE_ROOM = 3 * PATIENCE + 1


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for a descriptor for each of them, also in the processes that are started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000) if hard > 0 else 20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_slow_visitors_are_sent_away_and_disturb_nobody(many_files: None, record: Record) -> None:
    """Heads and bodies dripped, bodies halted, answers not read, silence: each ends when its time is over, the honest
    beside them are served as before, and nothing of it is left."""
    patience = ["--head-timeout", str(HEAD), "--idle-timeout", str(IDLE)]
    async with LocalProcess() as local, LocalProcess() as slow, RelayProcess(args=patience) as relay:
        names, port = [f"t={local.port}", f"slow={slow.port}"], relay.public_port
        async with AgentProcess(None, relay_port=relay.agents_port, key_file=relay.key_file, subdomain=names) as agent:
            await agent.established()
            async with Steady(port, f"t.{DOMAIN}", RATE) as steady:
                alone = await steady.seconds(10.0 if CHAOS else 2.0)
                async with SlowCrowd(port, f"slow.{DOMAIN}", COUNT, EVERY) as crowd:
                    await crowd.gathered()
                    ends = [
                        await crowd.gone(kind, TIME[kind] + 2 * SLACK + 10)
                        for kind in sorted(KINDS, key=lambda kind: TIME[kind])
                        if TIME[kind] < SPAN or CHAOS
                    ]
                    beside = await steady.mark()
            await nothing_left(relay)
    late = {event["kind"]: round(event["last"] - TIME[event["kind"]], 2) for event in ends}
    early = [event["kind"] for event in ends if event["first"] < 0.9 * TIME[event["kind"]] - 0.25]
    told = {event["kind"]: event["told"] for event in ends}
    record(
        name=f"slow visitors: {COUNT} sent away",
        asked=f"each within {SLACK:g} s of its time, none before; 408 where a request was begun",
        seen=f"seconds late: {late}; told: {told}",
        ok=max(late.values()) <= SLACK
        and not early
        and all(told[kind] == [TOLD[kind]] for kind in TOLD if kind in told),
        counts={f"late_{kind}_s": seconds for kind, seconds in late.items()} | {"visitors": COUNT},
    )
    allowed = TIMES * max(alone.p99, FLOOR)
    record(
        name=f"slow visitors: the honest beside {COUNT}",
        asked=f"no error, and p99 ≤ 3 × that without them (at least {FLOOR} s)",
        seen=f"p99 {1000 * beside.p99:.1f} ms, without {1000 * alone.p99:.1f} ms, failed {beside.failed or 'none'}",
        ok=not beside.failed and beside.p99 <= allowed,
        counts={"p99_s": beside.p99, "p50_s": beside.p50, "alone_p99_s": alone.p99, "asked": beside.asked},
    )


async def test_readers_that_stopped_do_not_hold_up_their_tunnel(record: Record) -> None:
    """More of them than the windows of the tunnel's links have room for: some are cut soon, and the others' answers
    come in again, long before the relay's patience with a visitor is over.
    """
    async with (
        LocalProcess() as local,
        tunnel(local.port, "t", ["--session-window", "2MiB"]) as t,
        Steady(t.port, t.host, RATE / 4) as steady,
        Noise("stopped", t.port, t.host, STOPPED),
    ):
        beside = await steady.seconds(2 * PATIENCE)
    took = f"the slowest after {beside.worst:.2f} s, p50 {1000 * beside.p50:.1f} ms"
    record(
        name=f"slow visitors: {STOPPED} that read nothing, on links with room for 32 each",
        asked=f"every other request of the tunnel answered, within {MADE_ROOM:g} s",
        seen=f"{took}, failed {beside.failed or 'none'}",
        ok=not beside.failed and beside.worst <= MADE_ROOM,
        counts={"worst_s": beside.worst, "p50_s": beside.p50, "asked": beside.asked},
    )
