"""What blocks beside the event loop: calls in threads, and names that are looked up by few of them."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable

import pytest

from relay.agent import lookups as lookups_room
from relay.agent.lookups import MOST_AT_ONCE, SLOW_AFTER, Lookups, in_thread
from tests.agent.localside import within
from tests.agent.relayside import until

# ---- threads


async def test_a_call_blocks_nothing_but_its_own_thread() -> None:
    """A result and an error come back to the loop."""
    assert await in_thread(threading.current_thread) is not threading.current_thread()

    def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await in_thread(fails)


async def test_a_call_that_hangs_holds_nobody_back() -> None:
    """An agent that stops leaves it behind: the thread is no reason for the process to live on."""
    gate = threading.Event()
    threads: list[threading.Thread] = []

    def hangs() -> None:
        threads.append(threading.current_thread())
        assert gate.wait(10)

    waiting: Awaitable[None] = asyncio.ensure_future(in_thread(hangs))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(waiting, 0.05)
    assert threads[0].daemon
    gate.set()
    await asyncio.to_thread(threads[0].join, 5)
    assert not threads[0].is_alive()


def test_a_call_that_answers_after_the_loop_has_gone_is_ignored() -> None:
    """Nothing is raised in its thread, which pytest would make an error."""
    gate = threading.Event()
    threads: list[threading.Thread] = []

    def late() -> None:
        threads.append(threading.current_thread())
        assert gate.wait(10)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(in_thread(late), 0.01)

    asyncio.run(give_up())
    gate.set()
    threads[0].join(5)
    assert not threads[0].is_alive()


# ---- names


class Resolver:
    """A name service: each question waits until `answers` says what to say, or is let go by `wake`."""

    def __init__(self) -> None:
        self.asked = 0
        self.said: list[list[str] | OSError] = []
        self.gates: list[threading.Event] = []
        self.lookups = Lookups(self.ask)

    def ask(self, host: str, port: int) -> list[str]:
        self.asked += 1
        if not self.said:
            gate = threading.Event()
            self.gates.append(gate)
            assert gate.wait(10)
        answer = self.said.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    def say(self, answer: list[str] | OSError) -> None:
        """Answers the newest question that waits."""
        self.said.append(answer)
        self.gates.pop().set()

    def end(self) -> None:
        """Lets go of every thread."""
        while self.gates:
            self.say(["127.0.0.9"])

    async def waits(self, count: int) -> None:
        """Until so many questions wait."""
        await until(lambda: len(self.gates) == count)


def ask(resolver: Resolver, host: str = "relay.example") -> asyncio.Task[list[str]]:
    return asyncio.ensure_future(resolver.lookups.addresses(host, 443))


async def test_who_asks_for_the_same_name_shares_the_answer() -> None:
    """However many ask meanwhile, one thread does; the next question is a new one."""
    resolver = Resolver()
    asking = [ask(resolver) for _ in range(50)]
    await resolver.waits(1)
    resolver.say(["127.0.0.2", "::1"])
    assert await within(asyncio.gather(*asking)) == [["127.0.0.2", "::1"]] * 50
    resolver.said = [["127.0.0.3"]]
    assert await within(ask(resolver)) == ["127.0.0.3"]
    assert resolver.asked == 2


async def test_different_names_are_asked_for_by_themselves() -> None:
    """One that is not answered keeps no other waiting."""
    resolver = Resolver()
    slow = ask(resolver, "slow.example")
    await resolver.waits(1)
    resolver.said = [["127.0.0.2"]]
    assert await within(ask(resolver, "fast.example")) == ["127.0.0.2"]
    assert not slow.done()
    resolver.end()
    assert await within(slow) == ["127.0.0.9"]


async def test_a_failure_is_everybodys_and_is_forgotten() -> None:
    """The next question may go better: a resolver that comes back needs no hand."""
    resolver = Resolver()
    asking = [ask(resolver) for _ in range(3)]
    await resolver.waits(1)
    resolver.say(socket.gaierror(socket.EAI_AGAIN, "no name server"))
    outcomes = await within(asyncio.gather(*asking, return_exceptions=True))
    assert [type(outcome) for outcome in outcomes] == [socket.gaierror] * 3
    resolver.said = [["127.0.0.2"]]
    assert await within(ask(resolver)) == ["127.0.0.2"]


async def test_a_resolver_that_hangs_is_asked_again_and_the_newer_answer_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who asks later joins a new question, and what the older ones say in the end disturbs nobody."""
    monkeypatch.setattr(lookups_room, "SLOW_AFTER", 0.0)
    resolver = Resolver()
    old = ask(resolver)
    await resolver.waits(1)
    new = ask(resolver)
    await resolver.waits(2)
    resolver.say(["127.0.0.2"])
    assert await within(asyncio.gather(old, new)) == [["127.0.0.2"]] * 2
    late = ask(resolver)
    await resolver.waits(2)
    resolver.say(["127.0.0.3"])
    assert await within(late) == ["127.0.0.3"]
    resolver.end()


async def test_a_resolver_that_hangs_costs_few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither many questions at once nor many one after another take more than a few; who gives up leaves no error."""
    resolver = Resolver()
    assert SLOW_AFTER > 1
    asking = [ask(resolver) for _ in range(100)]
    await resolver.waits(1)
    monkeypatch.setattr(lookups_room, "SLOW_AFTER", 0.0)
    asking += [ask(resolver) for _ in range(100)]
    await resolver.waits(MOST_AT_ONCE)
    for one in asking:
        one.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    assert resolver.asked == MOST_AT_ONCE
    resolver.say(OSError("nobody hears this"))
    resolver.end()


@pytest.mark.parametrize(
    ("host", "found"),
    [("127.0.0.7", ["127.0.0.7"]), ("::1", ["::1"]), ("localhost", ["127.0.0.1", "::1"])],
)
async def test_what_is_no_name_is_not_asked_for(host: str, found: list[str]) -> None:
    """Literals, and this machine."""
    resolver = Resolver()
    assert await ask(resolver, host) == found
    assert resolver.asked == 0


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", "x" * 70 + ".example"])
async def test_a_name_that_is_none_or_does_not_exist(host: str) -> None:
    """The system's own resolver says so; `.invalid` is reserved for it."""
    with pytest.raises((OSError, UnicodeError)):
        await within(asyncio.ensure_future(Lookups().addresses(host, 443)))


def test_the_systems_answer_is_addresses_without_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its order; other kinds of addresses are left out."""
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::2", 443, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 443)),
        (socket.AF_UNIX, socket.SOCK_STREAM, 0, "", "/somewhere"),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::2", 443, 0, 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert lookups_room.addresses_of("relay.example", 443) == ["::2", "127.0.0.2"]
