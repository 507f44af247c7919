"""What is remembered of requests' heads: nothing of it outlives the routes that it was made for."""

from __future__ import annotations

from relay.agent.forwarder import Route
from relay.agent.targets import parse_target
from relay.exchange.heads import Fields
from relay.wire.errors import ResetCode
from tests.agent.test_forwarder import Agents, Pool
from tests.support.clock import virtual


def lead(agents: Agents, target: str, upstream: Fields | None = None) -> Pool:
    """Where requests for `demo` go from now on."""
    pool = Pool()
    agents.forwarder.lead({"demo": Route("demo", parse_target(target), pool, upstream or [])})
    return pool


@virtual
async def test_the_same_head_goes_where_requests_go_now() -> None:
    """Another target, and its own name in the request; one that runs stays where it is."""
    agents = Agents("3000")
    first = await agents.open(1)
    assert dict(first.request.fields)[b"Host"] == b"127.0.0.1:3000"
    pool = lead(agents, "4000")
    with_others = len(agents.pool.calls)
    await agents.open(3)
    assert len(agents.pool.calls) == with_others
    (second,) = pool.calls
    assert dict(second.request.fields)[b"Host"] == b"127.0.0.1:4000"
    assert first.aborted == 0


@virtual
async def test_the_same_head_gets_the_credential_of_now() -> None:
    """One that was replaced is sent no more, and one that was taken away neither."""
    agents = Agents(upstream=[(b"Authorization", b"old")])
    call = await agents.open(1)
    assert dict(call.request.fields)[b"Authorization"] == b"old"
    for number, upstream in ((3, [(b"Authorization", b"new")]), (5, [])):
        pool = lead(agents, "3000", upstream)
        await agents.open(number)
        (call,) = pool.calls
        assert [pair for pair in call.request.fields if pair[0] == b"Authorization"] == upstream


@virtual
async def test_the_same_head_for_a_name_that_has_gone_is_refused() -> None:
    """As if it had never been known; and known again when the name is back."""
    agents = Agents()
    await agents.open(1)
    agents.forwarder.lead({})
    await agents.open(3)
    assert agents.reset(3) == (ResetCode.UNKNOWN_NAME, False, "this agent has no such tunnel")
    pool = lead(agents, "3000")
    await agents.open(5)
    assert len(pool.calls) == 1
