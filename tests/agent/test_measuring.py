"""What an agent tells of itself: just what docs/metrics.md says."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import signal
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.core import Metric

from relay.agent import runner as runner_room
from relay.agent.measuring import AgentNumbers, pages
from relay.agent.tally import Tally
from relay.exchange.heads import RequestHead, encode_request
from tests.agent.localside import within
from tests.agent.relayside import a_relay, settings, until
from tests.agent.running import Running, request, served
from tests.mux.ends import Owner
from tests.support.local import LocalService
from tests.support.metricspage import rows

PAGE = [row for row in rows() if row.name.startswith("relay_agent_")]


def tally_of(run: Running) -> Tally:
    """As if it had listened from the start."""
    tally = Tally()
    for event in run.events:
        tally.hear(event)
    return tally


def told(run: Running) -> dict[str, Metric]:
    """By the name that a sample has."""
    found = AgentNumbers(run.agent, tally_of(run)).collect()
    return {one.name + ("_total" if one.type == "counter" else ""): one for one in found}


def values(family: Metric) -> dict[tuple[str, ...], float]:
    return {tuple(one.labels.values()): one.value for one in family.samples}


async def test_the_page_and_the_code_name_the_same_metrics() -> None:
    """In both directions, with types and labels, and what always appears is there without a request."""
    async with served() as (_, run):
        await until(lambda: told(run)["relay_agent_link_round_trip_seconds"].samples)
        found = told(run)
        assert {name: one.type for name, one in found.items()} == {row.name: row.type for row in PAGE}
        for row in PAGE:
            assert all(set(one.labels) - {"le"} == set(row.labels) for one in found[row.name].samples), row
            assert found[row.name].samples or row.appears != "always", row
        for page in pages(run.agent, tally_of(run)).values():
            for line in page().body.decode().splitlines():
                if line.startswith("relay_"):
                    assert math.isfinite(float(line.split(" ")[1])), line


async def test_what_an_agent_counts() -> None:
    """Requests, bytes of links that have ended and of those that are up, connections to the local service."""
    async with LocalService() as local, served(port=local.port) as (relay, run):
        owner = request(relay)
        await until(lambda: owner.trailers is not None)
        found = told(run)
        assert values(found["relay_agent_requests_total"])["2xx", ""] == 1
        assert values(found["relay_agent_bytes_total"]) == {("in",): 0, ("out",): len(owner.body)}
        assert values(found["relay_agent_local_connections"]) == {("open",): 1, ("idle",): 1}
        assert values(found["relay_agent_ready"]) == {(): 1}
        for link in list(relay.links):
            link.session.abort("lost")
        await until(lambda: len(run.said("connected")) == 2)
        found = told(run)
        assert values(found["relay_agent_bytes_total"]) == {("in",): 0, ("out",): len(owner.body)}
        assert values(found["relay_agent_links_lost_total"]) == {(): 1}
        assert values(found["relay_agent_links_opened_total"]) == {(): 2}


async def test_a_visitor_that_does_not_read_is_seen() -> None:
    """As a stream whose bytes wait for credit of the relay."""
    async with LocalService() as local, served(port=local.port) as (relay, run):
        owner = Owner(greedy=False)
        (link,) = relay.links
        head = encode_request(RequestHead(b"GET", b"/bytes/2000000", [], "demo"))
        owner.stream = link.session.open(head, True, owner)
        await until(lambda: values(told(run)["relay_agent_streams_stalled"]) == {("in",): 0, ("out",): 1})
        owner.greedy = True
        owner.take()
        await until(lambda: values(told(run)["relay_agent_streams_stalled"]) == {("in",): 0, ("out",): 0})


def test_a_quiet_agent_counts_all_of_its_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody wants to read one by one is in the numbers all the same."""
    loop = asyncio.SelectorEventLoop()
    monkeypatch.setattr(runner_room, "_loop_factory", lambda: lambda: loop)
    monkeypatch.setattr(runner_room, "keep_heap", lambda: None)
    monkeypatch.setattr("gc.freeze", lambda: None)  # this process goes on
    stack = contextlib.AsyncExitStack()
    relay = loop.run_until_complete(stack.enter_async_context(a_relay()))
    local = loop.run_until_complete(stack.enter_async_context(LocalService()))
    found: list[asyncio.Task[bytes]] = []
    told: list[str] = []

    async def visits(host: str, port: int) -> bytes:
        try:
            await until(lambda: relay.links)
            for _ in range(3):
                owner = request(relay)
                await until(functools.partial(_ended, owner))
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            page = await within(reader.read())
            writer.close()
            return bytes(page)
        finally:
            await stack.aclose()
            signal.raise_signal(signal.SIGTERM)

    def report(event: dict[str, Any]) -> None:
        told.append(event["event"])
        if event["event"] == "metrics":
            host, _, port = event["address"].rpartition(":")
            found.append(asyncio.ensure_future(visits(host, int(port))))

    asked = replace(settings(relay.url, port=local.port), metrics=("127.0.0.1", 0))
    runner_room.run(asked, report, quiet=True)
    assert b'relay_agent_requests_total{class="2xx",error=""} 3.0\n' in found[0].result()
    assert told.count("request") == 1


def _ended(owner: Owner) -> bool:
    return owner.trailers is not None
