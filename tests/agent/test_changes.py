"""Other settings while an agent runs: what stays is not disturbed, what is refused changes nothing."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from relay.agent import runner as runner_room
from relay.agent import shift as shift_room
from relay.agent.config import AgentSettings, BadChange, Exit, FixedKey
from relay.agent.targets import parse_target
from relay.wire.access import AccessRules
from relay.wire.errors import AwayCode
from relay.wire.hello import Refused
from tests.agent.localside import Service, on_every_loop, within
from tests.agent.relayside import Relay, a_relay, settings, until
from tests.agent.running import Running, request
from tests.mux.ends import Owner

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Told:
    """`Changes` of a test: what it is told to say next."""

    def __init__(self) -> None:
        self.next: AgentSettings | Exception | None = None
        self.asked = 0

    def look(self, asked: bool) -> AgentSettings | None:
        self.asked += asked
        said, self.next = self.next, None
        if isinstance(said, Exception):
            raise said
        return said


@pytest.fixture(autouse=True)
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes are looked for all the time, and what was given up is looked at all the time."""
    monkeypatch.setattr(runner_room, "LOOK_EVERY", 0.005)
    monkeypatch.setattr(shift_room, "RELIEVED_LOOK", 0.005)


@asynccontextmanager
async def changing(*, links: int = 2, port: int = 1, names: tuple[str, ...] = ("demo",)) -> AsyncIterator[Changing]:
    """A relay, and an agent with all its links up."""
    async with a_relay() as relay:
        asked = settings(relay.url, links=links, names=names, port=port)
        run = Changing(relay, asked)
        try:
            await until(lambda: len(relay.links) == len(run.said("connected")) == links)
            yield run
        finally:
            while not run.task.done():
                run.agent.end()
                await within(run.task)
            run.forget_signals()


class Changing(Running):
    """An agent that runs, its relay, and what it is told."""

    def __init__(self, relay: Relay, asked: AgentSettings) -> None:
        super().__init__(asked)
        self.relay = relay
        self.asked = asked
        self.told = self.agent._changes = Told()

    async def change(self, asked: AgentSettings) -> None:
        """Tells it other settings, until it goes on by them, or not."""
        count = len(self.said("reloaded", "reload_failed"))
        self.told.next = asked
        await until(lambda: len(self.said("reloaded", "reload_failed")) > count)

    def slots(self) -> list[int]:
        """Of the links in service."""
        return [link.slot for link in self.relay.links]

    def down(self) -> list[tuple[str, ...]]:
        """Names that were without a link for a moment."""
        return [names for what, names in self.relay.house.reports if what == "agent_down"]

    def forget_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self.agent._loop.remove_signal_handler(number)


def with_tunnels(asked: AgentSettings, **ports: int) -> AgentSettings:
    """The same with these tunnels."""
    return replace(asked, tunnels=tuple((name, parse_target(str(port))) for name, port in ports.items()))


async def served(owner: Owner, service: Service) -> bytes:
    """What the visitor has, once the local service has answered."""
    peer = await service.accept()
    await peer.head()
    await peer.send(OK)
    await until(lambda: owner.trailers is not None or owner.reset)
    return bytes(owner.body)


@on_every_loop
async def test_another_local_service_takes_over_in_place() -> None:
    """The next request goes there; the one that runs ends where it began, and no link is touched."""
    async with Service() as old, Service() as new, changing(port=old.port) as run:
        before, began = run.relay.links, request(run.relay)
        peer = await old.accept()
        await peer.head()
        await run.change(with_tunnels(run.asked, demo=new.port))
        assert run.said("reloaded") == [{"event": "reloaded", "added": [], "removed": [], "changed": ["demo"]}]
        assert await served(request(run.relay), new) == b"ok"
        await peer.send(OK)
        await until(lambda: began.trailers is not None)
        assert bytes(began.body) == b"ok"
        assert run.relay.links == before
        assert len(run.relay.answers.hellos) == 2


@pytest.mark.parametrize("links", [1, 2, 3, 4])
@on_every_loop
async def test_a_tunnel_more_leaves_the_others_alone(links: int) -> None:
    """New links claim both names, no name is without a link, and what runs on the old ones ends in its own time."""
    async with Service() as service, changing(links=links, port=service.port) as run:
        began = request(run.relay)
        peer = await service.accept()
        await peer.head()
        for count, name in enumerate(("more", "most"), 1):
            await run.change(with_tunnels(run.asked, demo=service.port, **{name: service.port}))
            await until(lambda: len(run.relay.links) == links)
            assert {link.names for link in run.relay.links} == {("demo", name)}
            assert len(run.said("reloaded")) == count
            assert ("demo",) not in run.down()
            assert ("demo", "more") not in run.down()
            assert await served(request(run.relay, run.slots()[0], name), service) == b"ok"
        await peer.send(OK)
        await until(lambda: began.trailers is not None or began.reset)
        assert bytes(began.body) == b"ok"
        await until(lambda: sum(not session.ended for session in run.relay.sessions) == links)
        assert not run.said("disconnected", "refused", "error", "reload_failed")
        assert [event["subdomain"] for event in run.said("established")] == ["demo", "more", "most"]
        assert len({hello.instance for hello in run.relay.answers.hellos}) == 1


@on_every_loop
async def test_other_rules_and_another_key_reach_the_relay() -> None:
    """They are the relay's to keep, so new links ask for them."""
    async with changing() as run:
        rules = {"demo": AccessRules(True)}
        await run.change(replace(run.asked, access=rules, keys=FixedKey("other"), links=1))
        await until(lambda: len(run.relay.links) == 1)
        hello = run.relay.answers.hellos[-1]
        assert (hello.access, hello.key) == (rules, "other")
        assert run.said("reloaded")[0]["changed"] == ["demo"]


@pytest.mark.parametrize("links", [2, 4])
@on_every_loop
async def test_what_the_relay_refuses_changes_nothing(links: int) -> None:
    """Its reason is told, all links stay or are back, and the next change is taken."""
    async with Service() as service, changing(links=links, port=service.port) as run:
        run.relay.answers.refusals = [Refused("name_taken", "The name more is taken.", 5.0)]
        await run.change(with_tunnels(run.asked, demo=service.port, more=2))
        assert run.said("reload_failed") == [{"event": "reload_failed", "message": "The name more is taken."}]
        await until(lambda: len(run.relay.links) == links)
        assert {link.names for link in run.relay.links} == {("demo",)}
        assert not run.down()
        assert await served(request(run.relay), service) == b"ok"
        await run.change(with_tunnels(run.asked, demo=service.port, less=2))
        await until(lambda: {link.names for link in run.relay.links} == {("demo", "less")})
        assert not run.task.done()


@on_every_loop
async def test_a_file_that_is_wrong_changes_nothing() -> None:
    """It is told once, as it was put."""
    async with changing() as run:
        run.told.next = BadChange("relay.yaml:3: no.")
        await until(lambda: run.said("reload_failed"))
        assert run.said("reload_failed") == [{"event": "reload_failed", "message": "relay.yaml:3: no."}]
        assert run.slots() == [0, 1]


@on_every_loop
async def test_a_look_that_fails_is_not_the_last() -> None:
    """A defect there ends nothing that runs, and is told without what it may have read."""
    async with changing() as run:
        before, failures = run.relay.links, list[str]()
        run.agent._loop.set_exception_handler(lambda _, context: failures.append(context["message"]))
        run.told.next = OSError("mtk_child_secret")
        await until(lambda: run.said("reload_failed"))
        assert run.said("reload_failed") == [{"event": "reload_failed", "message": "Unexpected: OSError"}]
        assert failures == ["a look for changes failed"]
        await run.change(with_tunnels(run.asked, demo=2))
        assert run.said("reloaded")
        assert run.relay.links == before


@on_every_loop
async def test_a_hangup_asks_for_a_look() -> None:
    """SIGHUP does not end it."""
    async with changing() as run:
        signal.raise_signal(signal.SIGHUP)
        await until(lambda: run.told.asked)
        assert not run.task.done()


@on_every_loop
async def test_a_tunnel_that_was_taken_out_has_a_grace_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs over it is cut then; over a tunnel that stays nothing is."""
    monkeypatch.setattr(shift_room, "REMOVED_GRACE", 0.05)
    async with Service() as service, changing(port=service.port, names=("demo", "gone")) as run:
        stays = request(run.relay)
        peer = await service.accept()
        await peer.head()
        goes = request(run.relay, 1, "gone")
        await (await service.accept()).head()
        await run.change(with_tunnels(run.asked, demo=service.port))
        await until(lambda: goes.reset)
        assert not stays.reset
        await peer.send(OK)
        await until(lambda: stays.trailers is not None)
        assert run.said("reloaded")[0]["removed"] == ["gone"]


@on_every_loop
async def test_a_change_that_waits_for_its_relay_gives_way_to_the_next() -> None:
    """The relay it names is not there: the agent goes on, and the next change is not kept waiting."""
    async with a_relay() as away, changing() as run:
        await away.stop()
        run.told.next = replace(run.asked, relay_url=away.url)
        await until(lambda: len(run.said("disconnected")) > 2)
        assert run.slots() == [0, 1]
        await run.change(with_tunnels(run.asked, demo=1, more=1))
        assert not run.said("reload_failed")
        await until(lambda: len(run.relay.links) == 2)
        await away.start()


@pytest.mark.parametrize("admitted", [True, False])
@on_every_loop
async def test_a_key_that_is_revoked_while_another_is_tried(admitted: bool) -> None:
    """The other one decides whether it is the end."""
    async with changing(links=1) as run:
        refusals = [Refused("overloaded", "Later.", 0.05), Refused("bad_key", "No.")]
        run.relay.answers.refusals = refusals[:1] if admitted else refusals
        run.told.next = replace(run.asked, keys=FixedKey("other"))
        await until(lambda: run.said("refused"))
        run.relay.links[0].session.close(AwayCode.REVOKED, "The key was revoked.")
        if admitted:
            await until(lambda: run.said("reloaded"))
            await until(lambda: [link.principal.key_id for link in run.relay.links] != [])
            assert not run.task.done()
        else:
            assert await run.exits() == Exit.KEY_REVOKED


@on_every_loop
async def test_the_end_of_a_key_that_was_replaced_is_no_verdict() -> None:
    """Whoever replaces a key revokes the old one: what still ran by it is cut, and the agent goes on."""
    async with Service() as service, changing(links=1, port=service.port) as run:
        began = request(run.relay)
        await (await service.accept()).head()
        old = run.relay.sessions[0]
        await run.change(replace(run.asked, keys=FixedKey("other")))
        old.close(AwayCode.REVOKED, "The key was revoked.")
        await until(lambda: began.reset)
        assert await served(request(run.relay, run.slots()[0]), service) == b"ok"
        assert not run.said("revoked", "error", "disconnected")


@on_every_loop
async def test_a_signal_gives_also_what_was_relieved_its_time() -> None:
    """It ends once everything has."""
    async with Service() as service, changing(port=service.port) as run:
        began = request(run.relay)
        peer = await service.accept()
        await peer.head()
        await run.change(with_tunnels(run.asked, demo=service.port, more=1))
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: run.said("stopping"))
        assert run.said("stopping") == [{"event": "stopping", "open": 1}]
        await until(lambda: not run.relay.links)
        await peer.send(OK)
        assert await run.exits() == Exit.STOPPED
        assert bytes(began.body) == b"ok"


@on_every_loop
async def test_of_many_that_were_relieved_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What never ends, over links of ever older settings, is bounded."""
    monkeypatch.setattr(runner_room, "MOST_RELIEVED", 1)
    async with Service() as service, changing(links=1, port=service.port) as run:
        owners: list[Owner] = []
        for name in ("a", "b"):
            owners.append(request(run.relay, run.slots()[0]))
            await (await service.accept()).head()
            await run.change(with_tunnels(run.asked, demo=service.port, **{name: 1}))
        await until(lambda: owners[0].reset)
        assert not owners[1].reset
