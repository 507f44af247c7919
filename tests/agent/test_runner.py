"""An agent's life: its links kept up for ever, what it reports, which refusal is the end, and how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
from dataclasses import replace
from typing import Any

import pytest

from relay.agent import backoff as backoff_room
from relay.agent import link as link_room
from relay.agent import runner as runner_room
from relay.agent import shift as shift_room
from relay.agent import slots as slots_room
from relay.agent import surroundings as surroundings_room
from relay.agent.config import Exit
from relay.exchange.heads import RequestHead, encode_request
from relay.wire.errors import AwayCode
from relay.wire.hello import Refused
from relay.wire.limits import TunnelLimits
from tests.agent.keysource import DAY, Mint
from tests.agent.localside import Service, on_every_loop, within
from tests.agent.relayside import WELCOME, Relay, Say, a_relay, a_websocket, saying, send_away, settings, until
from tests.agent.running import Running, connected, request, running, served
from tests.mux.ends import Owner
from tests.support.clock import ManualClock
from tests.support.faults import FaultProxy

SOON = 0.02


# ---- links


@on_every_loop
async def test_an_agent_comes_up_on_all_its_links() -> None:
    """Each link connects; the tunnels are told as established once, with their addresses."""
    async with served(links=3, names=("one", "two")) as (relay, run):
        await until(lambda: len(run.said("connected")) == 3)
        assert sorted(event["slot"] for event in run.said("connected")) == [0, 1, 2]
        assert run.said("established") == [
            {
                "event": "established",
                "subdomain": name,
                "url": f"http://{name}.tunnels.localhost:8080",
                "target": "http://127.0.0.1:1",
            }
            for name in ("one", "two")
        ]
        hellos = relay.answers.hellos
        assert len({hello.instance for hello in hellos}) == 1
        assert len({hello.generation for hello in hellos}) == 3
        assert {(hello.key, hello.names, hello.agent) for hello in hellos} == {("good", ("one", "two"), "test-agent/1")}
        assert run.events[0] == {"event": "connecting", "slot": 0, "relay": relay.url}


@on_every_loop
async def test_a_request_goes_through() -> None:
    """From a stream of the relay to the local service and back, and it is reported."""
    async with Service() as service, served(port=service.port) as (relay, run):
        owner = request(relay)
        peer = await service.accept()
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await until(lambda: owner.trailers is not None)
        assert bytes(owner.body) == b"hello"
        await until(lambda: run.said("request"))
        assert run.said("request")[0]["status"] == 200


@pytest.mark.parametrize(("quiet", "told"), [(True, [200, 404]), (False, [200, 200, 404])])
@on_every_loop
async def test_a_quiet_agent_reports_what_changes(quiet: bool, told: list[int]) -> None:
    """A request that goes well after another one is not reported, where nobody wants to read it."""
    async with Service() as service, served(port=service.port, quiet=quiet) as (relay, run):
        peer = None
        for status in (200, 200, 404):
            owner = request(relay)
            peer = peer or await service.accept()
            await peer.head()
            await peer.send(b"HTTP/1.1 %d Is\r\nContent-Length: 0\r\n\r\n" % status)
            await until(functools.partial(_ended, owner))
        assert run.agent.exchanges == 0
        assert [event["status"] for event in run.said("request")] == told


def _ended(owner: Owner) -> bool:
    return owner.trailers is not None


@on_every_loop
async def test_a_link_that_breaks_is_replaced_at_once() -> None:
    """The first attempt of an outage is not delayed; the same instance comes back with a higher generation."""
    async with served(links=2) as (relay, run):
        first = relay.links[0].generation
        await until(lambda: len(run.said("connected")) == 2)
        relay.links[0].session.abort("cut")
        await until(lambda: len(run.said("connected")) == 3)
        await until(lambda: len(relay.links) == 2)
        assert relay.links[0].generation > first
        assert len({hello.instance for hello in relay.answers.hellos}) == 1
        (lost,) = run.said("disconnected")
        assert (lost["slot"], lost["retry_in"], lost["reason"]) == (0, 0.0, "the connection broke")
        assert len(run.said("established")) == 1


@on_every_loop
async def test_losing_one_link_loses_only_its_streams() -> None:
    """The tunnel stays up on the other link."""
    async with served(links=2) as (relay, _):
        relay.links[1].session.abort("cut")
        assert "demo" in relay.house.hub.tunnels
        assert ("agent_down", ("demo",)) not in relay.house.reports


@on_every_loop
async def test_a_link_that_keeps_breaking_is_tried_less_often() -> None:
    """A link that lives for a moment is no success: the next attempts are delayed, within the cap."""
    async with served() as (relay, run):
        for count in range(1, 7):
            await connected(relay, run, count)
            relay.links[0].session.abort("cut")
        await until(lambda: len(run.said("disconnected")) == 6)
        delays = [event["retry_in"] for event in run.said("disconnected")]
        assert delays[0] == 0.0
        assert any(delays[1:])
        assert max(delays) <= 0.25


@on_every_loop
async def test_a_link_that_lived_is_replaced_at_once_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each break of a link that was stable begins a new outage."""
    monkeypatch.setattr(slots_room, "STABLE_AFTER", 0.0)
    async with served() as (relay, run):
        for count in range(1, 5):
            await connected(relay, run, count)
            relay.links[0].session.abort("cut")
        await until(lambda: len(run.said("disconnected")) == 4)
        assert [event["retry_in"] for event in run.said("disconnected")] == [0.0] * 4


@on_every_loop
async def test_an_agent_waits_for_its_relay_for_ever() -> None:
    """It starts before the relay does, and survives its absence; each attempt says why it failed."""
    relay = Relay()
    await relay.start()
    await relay.stop()
    async with running(settings(relay.url)) as run:
        await until(lambda: len(run.said("disconnected")) >= 3)
        assert {event["reason"] for event in run.said("disconnected")} == {"connection refused"}
        assert run.said("disconnected")[0]["retry_in"] == 0.0
        assert not run.task.done()
        relay.house = Relay().house
        relay.house.doorway.admission = relay.answers
        await relay.start()
        await until(lambda: run.said("established"))
        await relay.stop()


@on_every_loop
async def test_a_relay_that_goes_away_is_replaced_beside_it() -> None:
    """A new link is opened at once; a stream on the old one ends as if nothing were."""
    async with Service() as service, served(port=service.port) as (relay, run):
        owner = request(relay)
        peer = await service.accept()
        await peer.head()
        send_away(relay.sessions[0])
        await until(lambda: len(run.said("connected")) == 2)
        assert run.said("disconnected")[0]["reason"] == "the relay is going away"
        assert not relay.sessions[0].ended or owner.reset is None
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await until(lambda: owner.trailers is not None or owner.reset)
        assert bytes(owner.body) == b"ok"


@on_every_loop
async def test_a_relay_that_goes_away_is_served_until_it_has_gone() -> None:
    """It may go on to send requests over the old link, which the agent serves and leaves for the relay to end; what a
    relay that ends answers to new links is waited out.
    """
    async with Service() as service, served(port=service.port) as (relay, run):
        relay.answers.refusals = [Refused("draining", "This relay ends.", 0.01)] * 5
        relay.sessions[0].go_away(AwayCode.SHUTDOWN, "the relay stops")
        await until(lambda: run.said("disconnected"))
        for _ in range(3):
            owner = Owner()
            head = encode_request(RequestHead(b"GET", b"/", [], "demo"))
            owner.stream = relay.sessions[0].open(head, True, owner)
            peer = await service.accept()
            await peer.head()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            await until(lambda owner=owner: owner.trailers is not None)  # type: ignore[misc]
            assert bytes(owner.body) == b"ok"
        await until(lambda: len(run.said("refused")) == 5)
        assert {event["code"] for event in run.said("refused")} == {"draining"}
        await until(lambda: len(run.said("connected")) == 2)


# ---- the world around


@pytest.fixture
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks are taken all the time, and links are not waited for."""
    monkeypatch.setattr(surroundings_room, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(shift_room, "ANSWERS_WITHIN", 0.3)


@on_every_loop
async def test_links_that_did_not_outlive_a_sleep_are_replaced(
    attentive: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that still answers goes on with what it carries; for the other a new one comes at once."""
    asleep, loop = 0.0, asyncio.get_running_loop()
    monkeypatch.setattr(surroundings_room, "counting_sleep", lambda: loop.time() + asleep)
    async with Service() as service, served(links=2, port=service.port, through=FaultProxy) as (relay, run):
        owners = [request(relay, slot) for slot in (0, 1)]
        for _ in owners:
            await (await service.accept()).head()
        assert run.proxy is not None
        await run.proxy.swallow("both", pair=(await run.proxy.pairs())[0], new=False)
        asleep = 600.0
        await until(lambda: len(run.said("connected")) == 3)
        assert [round(event["asleep"]) for event in run.said("woke")] == [600]
        (gone,) = run.said("disconnected")
        assert (gone["reason"], gone["retry_in"]) == ("the relay does not answer on it any more", 0.0)
        await until(lambda: any(owner.reset for owner in owners))  # its newer twin evicts the dead link
        for peer in service.peers:
            with contextlib.suppress(ConnectionError):
                await peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        await until(lambda: all(owner.reset or owner.trailers is not None for owner in owners))
        assert sorted(owner.reset is None for owner in owners) == [False, True]


@on_every_loop
async def test_an_agent_that_waits_to_try_again_tries_when_the_network_is_back(
    attentive: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had long given up trying often."""
    monkeypatch.setattr(backoff_room, "CAPS", ())
    monkeypatch.setattr(backoff_room, "FIRST", 1000.0)
    monkeypatch.setattr(backoff_room, "LAST_CAP", 1000.0)
    way = "127.0.0.1"
    monkeypatch.setattr(surroundings_room, "way_to", lambda peer: way)
    async with served() as (relay, run):
        relay.answers.refusals = [Refused("overloaded", "Later.", 0.0)]
        relay.links[0].session.abort("cut")
        await until(lambda: len(run.said("disconnected")) == 2)
        assert run.said("disconnected")[-1]["retry_in"] > 1
        way = ""
        await asyncio.sleep(0.05)
        way = "192.0.2.2"
        await until(lambda: len(run.said("connected")) == 2)
        assert run.said("network_changed")[0] == {"event": "network_changed", "address": "192.0.2.2"}


@on_every_loop
async def test_a_clock_that_jumps_disturbs_nobody(attentive: None) -> None:
    """It is told, and neither a link nor the key suffers; one new key is the most that a jump costs."""
    wall = ManualClock()
    mint = Mint(wall)
    async with served(links=2, keys=mint, now=wall) as (relay, run):
        for count in range(1, 6):
            wall.advance(400 * DAY)
            await until(lambda count=count: len(run.said("clock_changed")) == count)  # type: ignore[misc]
        assert mint.asked <= 1 + 5
        assert not run.said("disconnected", "woke")
        assert len(relay.answers.hellos) == 2


def welcoming(more: bytes = b"") -> Say:
    body = b'{"session":"s","tunnels":[{"name":"demo","url":"http://x"}],"ping_interval":5,"max_streams":5,"version":1'
    return saying(WELCOME, body + more + b"}")


@pytest.mark.parametrize(("more", "warns"), [(b"", True), (b',"limits":[]', True), (b',"limits":["demo"]', False)])
@on_every_loop
async def test_limits_that_the_relay_does_not_keep_are_warned_of(more: bytes, warns: bool) -> None:
    """Once; the tunnel is open all the same."""
    async with a_websocket(welcoming(more)) as url:
        asked = replace(settings(url), limits={"demo": TunnelLimits(20, 5)})
        async with running(asked) as run:
            await until(lambda: run.said("established"))
            said = [event["message"] for event in run.said("warning")]
            assert len(said) == warns
            assert all("requests to demo are not limited" in message for message in said)


@on_every_loop
async def test_limits_reach_the_relay() -> None:
    """As they were asked for, on every link."""
    async with a_relay() as relay:
        limits = {"demo": TunnelLimits(20, None)}
        async with running(replace(settings(relay.url, links=2), limits=limits)) as run:
            await until(lambda: len(run.said("connected")) == 2)
            assert [hello.limits for hello in relay.answers.hellos] == [limits] * 2


# ---- refusals


@pytest.mark.parametrize(
    ("refused", "code"),
    [
        (Refused("bad_key", "No."), Exit.KEY_REFUSED),
        (Refused("name_reserved", "No."), Exit.NAME_REFUSED),
        (Refused("name_taken", "No.", 5.0), Exit.NAME_REFUSED),
        (Refused("name_taken", "No."), Exit.NAME_REFUSED),
        (Refused("version", "No."), Exit.VERSION_REFUSED),
        (Refused("bad_hello", "No."), Exit.UNEXPECTED),
        (Refused("something_new", "No."), Exit.UNEXPECTED),
    ],
)
@on_every_loop
async def test_a_refusal_at_the_start_is_final(refused: Refused, code: Exit) -> None:
    """It is reported with its words, and the exit code says which it was; nothing is tried again."""
    async with a_relay() as relay:
        relay.answers.refusals = [refused]
        async with running(settings(relay.url)) as run:
            assert await run.exits() == code
            assert run.said("refused") == [
                {"event": "refused", "code": refused.code, "message": "No.", "retry_after": refused.retry_after}
            ]
            assert len(relay.answers.hellos) == 1


@pytest.mark.parametrize("code", ["overloaded", "draining", "too_many", "stale_generation", "something_new"])
@on_every_loop
async def test_a_refusal_with_a_time_is_tried_again(code: str) -> None:
    """Not before that time, and then until it is welcomed."""
    async with a_relay() as relay:
        relay.answers.refusals = [Refused(code, "Later.", SOON)] * 2
        async with running(settings(relay.url)) as run:
            start = asyncio.get_running_loop().time()
            await until(lambda: run.said("established"))
            assert asyncio.get_running_loop().time() - start >= 2 * SOON
            assert [event["reason"] for event in run.said("disconnected")] == ["Later."] * 2
            assert all(event["retry_in"] >= SOON for event in run.said("disconnected"))


@on_every_loop
async def test_an_agent_that_was_up_waits_for_its_name() -> None:
    """A name that another agent took meanwhile may come free again: a time in the refusal is believed."""
    async with served() as (relay, run):
        relay.answers.refusals = [Refused("name_taken", "Taken.", SOON)]
        relay.links[0].session.abort("cut")
        await until(lambda: len(run.said("connected")) == 2)
        assert run.said("refused")[0]["code"] == "name_taken"
        assert not run.task.done()


@on_every_loop
async def test_an_agent_whose_key_was_revoked_ends() -> None:
    """A refusal for good is the end also after it was up, and of all its links."""
    async with served(links=2) as (relay, run):
        relay.answers.refusals = [Refused("bad_key", "Revoked.")]
        relay.links[0].session.abort("cut")
        assert await run.exits() == Exit.KEY_REFUSED
        await until(lambda: not relay.links)


# ---- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@on_every_loop
async def test_an_idle_agent_stops_at_once(number: signal.Signals) -> None:
    """Exit code 0, the relay is told, and no link is left."""
    async with served(links=2) as (relay, run):
        assert await run.stop(number) == Exit.STOPPED
        assert run.said("stopping") == [{"event": "stopping", "open": 0}]
        await until(lambda: not relay.links)
        assert all(session.ended for session in relay.sessions)
        assert not run.said("disconnected")


@on_every_loop
async def test_an_agent_without_a_relay_stops_too() -> None:
    """While it dials, or waits to dial."""
    relay = Relay()
    await relay.start()
    await relay.stop()
    async with running(settings(relay.url)) as run:
        await until(lambda: run.said("disconnected"))
        assert await run.stop() == Exit.STOPPED


@pytest.mark.parametrize("ends", ["the exchange", "the grace time", "a second signal"])
@on_every_loop
async def test_a_busy_agent_finishes_what_runs(ends: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing new is taken; it stops when the last exchange has ended, its time is over, or it is told again."""
    if ends == "the grace time":
        monkeypatch.setitem(runner_room.GRACE, signal.SIGTERM, 0.05)
    async with Service() as service, served(port=service.port) as (relay, run):
        owner = request(relay)
        peer = await service.accept()
        await peer.head()
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: run.said("stopping"))
        assert run.said("stopping") == [{"event": "stopping", "open": 1}]
        await until(lambda: not relay.links)
        assert not run.task.done()
        if ends == "the exchange":
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        elif ends == "a second signal":
            signal.raise_signal(signal.SIGTERM)
        assert await run.exits() == Exit.STOPPED
        await until(lambda: owner.trailers is not None or owner.reset)
        assert (bytes(owner.body) == b"hello") == (ends == "the exchange")
        if ends != "the exchange":
            await peer.rest()


@on_every_loop
async def test_a_busy_agent_waits_until_all_has_been_taken() -> None:
    """The local service has long said its last word when the visitor still reads: none of it is cut off."""
    body = bytes(range(256)) * 400  # more than the first credit, less than what makes the local service wait
    async with Service() as service, served(port=service.port) as (relay, run):
        owner = request(relay, owner=Owner(greedy=False))
        peer = await service.accept()
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await until(lambda: run.said("request"))
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: not relay.links)
        assert owner.trailers is None
        assert not run.task.done()
        while owner.trailers is None and owner.reset is None:
            owner.take()
            await asyncio.sleep(0.005)
        assert bytes(owner.body) == body
        assert await run.exits() == Exit.STOPPED


@on_every_loop
async def test_an_agent_whose_relay_is_away_does_not_wait_to_stop() -> None:
    """A link that carries nothing more, and answers nothing, holds it up for a moment only."""
    loop = asyncio.get_running_loop()
    async with served(through=FaultProxy) as (_, run):
        assert run.proxy is not None
        await run.proxy.swallow("both")
        begun = loop.time()
        assert await run.stop() == Exit.STOPPED
        assert loop.time() - begun < 2 * link_room.SETTLED_WITHIN + shift_room.CLOSED_WITHIN


@on_every_loop
async def test_a_link_that_comes_up_while_the_agent_stops_takes_nothing_new() -> None:
    """A visitor's request must not begin on an agent that is about to end."""
    asked, gate = asyncio.Event(), asyncio.Event()
    async with Service() as service, a_relay() as relay:
        local = settings(relay.url, port=service.port, links=2)
        admit = relay.answers.admit

        async def slow(hello: Any, address: str) -> Any:
            if hello.slot == 1:
                asked.set()
                await gate.wait()
            return await admit(hello, address)

        relay.answers.admit = slow  # type: ignore[method-assign]
        async with running(local) as run:
            await until(lambda: relay.links)
            await within(asked.wait())
            request(relay)
            peer = await service.accept()
            await peer.head()
            signal.raise_signal(signal.SIGTERM)
            await until(lambda: not relay.links)
            gate.set()
            await until(lambda: len(run.said("connected")) == 2)
            await until(lambda: not relay.links)
            await peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            assert await run.exits() == Exit.STOPPED


@on_every_loop
async def test_a_defect_ends_the_agent_with_its_own_code() -> None:
    """It is reported, and no half-dead agent is left behind."""
    troubles: list[dict[str, Any]] = []
    async with a_relay() as relay:
        run = Running(settings(relay.url))
        loop = asyncio.get_running_loop()
        before = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, context: troubles.append(context))
        run.agent._current._hello = lambda slot, key: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        assert await run.exits() == Exit.UNEXPECTED
        assert "ZeroDivisionError" in run.said("error")[0]["message"]
        assert len(troubles) == 1
        loop.set_exception_handler(before)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
