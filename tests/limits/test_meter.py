"""The meter: a request passes all limits or takes nothing, and a refusal says what a program needs to come back."""

from __future__ import annotations

import itertools
import math
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.keys.scopes import MAX_LIMIT, Scope
from relay.limits.allowances import Allowance, Totals
from relay.limits.brakes import MOST_ADDRESSES, Brake, Brakes, network_of
from relay.limits.meter import Ask, Meter
from relay.limits.months import month_of
from relay.limits.pacing import Pacer
from relay.limits.refusals import MOST_INTEGER, Refusal, month_is_used_up, too_fast, too_large, too_many_streams
from relay.mux.session import Session
from relay.wire.limits import TunnelLimits
from tests.limits.fields import parse

WALL = 1_793_000_000.0  # in October 2026
MONTH = month_of(WALL)
ASK = Ask("192.0.2.1")


def chain(*scopes: Scope) -> tuple[Allowance, ...]:
    return tuple(Allowance(f"mtk_child_{at}", scope, 0.0) for at, scope in enumerate(scopes))


def admitted(meter: Meter, now: float, ask: Ask = ASK) -> bool:
    return meter.admit(ask, now, WALL) is None


def refused(meter: Meter, now: float = 0.0, ask: Ask = ASK, wall: float = WALL) -> Refusal:
    refusal = meter.admit(ask, now, wall)
    assert refusal is not None
    return refusal


# ---- admission


def test_without_limits_the_caller_only_counts() -> None:
    """`limited` says so, `requests` is what it adds to, and the whole chain knows after the next fold."""
    allowances = chain(Scope(), Scope(tunnels=3))
    meter = Meter(allowances)
    assert not meter.limited
    meter.requests += 2
    meter.fold(MONTH.name, 10, 20)
    assert [one.used(MONTH.name) for one in allowances] == [Totals(2, 10, 20)] * 2
    assert meter.requests == 0


def test_all_or_nothing() -> None:
    """A request that one limit refuses takes nothing from the others, and is not counted."""
    key, project = allowances = chain(Scope(rate=100), Scope(rate=2))
    meter = Meter(allowances, Brake(TunnelLimits(50, 50)))
    assert admitted(meter, 0.0)
    for _ in range(60):
        assert not admitted(meter, 0.0)
    assert key.rate is not None
    assert key.rate.level(0.0) == 24
    assert admitted(meter, 0.5)
    assert [one.used(MONTH.name).requests for one in (key, project)] == [2, 2]


def test_a_limit_bounds_the_sum_below_it() -> None:
    """Two keys of one project share its rate."""
    project = Allowance("project", Scope(rate=8), 0.0)
    meters = [Meter((*chain(Scope()), project)) for _ in range(2)]
    assert [admitted(meter, 0.0) for meter in itertools.chain(*[meters] * 2)] == [True, True, False, False]


@pytest.mark.parametrize("rate", [1, 2, 10, 77, 1000])
def test_over_ten_seconds_the_rate_is_exact(rate: int) -> None:
    """As fast as one may ask, 10 s bring 10 s' worth, within 5 % (or one request)."""
    meter = Meter(chain(Scope(rate=rate)))
    steps = rate * 50
    let_in = sum(admitted(meter, 100 + step / (rate * 5)) for step in range(steps))
    assert abs(let_in - 10 * rate) <= max(0.05 * 10 * rate, 1)


SCOPES = st.builds(
    Scope,
    rate=st.none() | st.integers(1, 50),
    streams=st.none() | st.integers(1, 3),
    monthly_requests=st.none() | st.integers(1, 20),
    monthly_bytes=st.none() | st.integers(1, 20),
)
BRAKES = st.none() | st.builds(TunnelLimits, st.integers(1, 20), st.none() | st.integers(1, 20))


@given(st.lists(SCOPES, min_size=1, max_size=4), BRAKES, st.lists(st.floats(0, 2), max_size=30), st.floats(0, 1e6))
def test_waiting_exactly_so_long_is_enough(
    scopes: list[Scope], limits: TunnelLimits | None, pauses: list[float], start: float
) -> None:
    """Whatever refuses, the request is let in after `retry_after` seconds, if nobody else came; and not before."""
    meter = Meter(chain(*scopes), Brake(limits) if limits is not None else None)
    now, wall = start, WALL
    for pause in [*pauses, 0.0, 0.0]:
        now, wall = now + pause, wall + pause
        refusal = meter.admit(ASK, now, wall)
        if refusal is None:
            meter.fold(month_of(wall).name, 1, 0)
            continue
        wait = refusal.retry_after
        assert wait is not None
        assert wait > 0
        if wait > 1e-3:
            assert meter.admit(ASK, now + wait * 0.99, wall + wait * 0.99) is not None
        now, wall = now + wait, wall + wait
        assert meter.admit(ASK, now, wall) is None


def test_the_longest_wait_is_told() -> None:
    """Of several refusals the one that lasts, and one that no waiting ends before all others."""
    meter = Meter(chain(Scope(rate=1, streams=1, monthly_requests=1, body=10)))
    meter.chain[0].streams = 1
    assert refused(meter).code == "too_many_streams"
    meter.chain[0].streams = 0
    assert admitted(meter, 0.0)
    assert refused(meter).code == "quota_exhausted"
    too_much = refused(meter, ask=Ask("192.0.2.1", 11))
    assert (too_much.code, too_much.retry_after) == ("body_too_large", None)


def test_a_declared_body_is_refused_at_once() -> None:
    """The smallest limit of the chain counts; an undeclared length is counted later."""
    meter = Meter(chain(Scope(body=100), Scope(body=10), Scope()))
    assert "10 bytes" in refused(meter, ask=Ask("192.0.2.1", 11)).sentence
    assert admitted(meter, 0.0, Ask("192.0.2.1", 10))
    assert admitted(meter, 0.0, Ask("192.0.2.1", None))


def test_a_change_of_a_scope_counts_at_once() -> None:
    """A meter knows of every change in its chain, in both directions."""
    key, project = chain(Scope(), Scope())
    meter = Meter((key, project))
    project.rescope(Scope(bandwidth=1000), 0.0)
    assert meter.limited
    assert meter.paced
    assert meter.down.bands == (project.down, key.down)
    key.rescope(Scope(rate=1, body=5), 0.0)
    project.rescope(Scope(), 0.0)
    assert (meter.limited, meter.paced, meter.body, len(meter.down.bands)) == (True, True, 5, 0)
    key.rescope(Scope(), 0.0)
    assert (meter.limited, meter.paced) == (False, False)


def test_streams_that_nothing_limits_are_opened_as_ever() -> None:
    """Where only the number of requests is limited, nothing stands between an exchange and its session."""
    session = cast(Session, object())
    pacer: Pacer = object.__new__(Pacer)
    assert Meter(chain(Scope(rate=5, monthly_requests=7))).opener(session, pacer, ASK) is session
    for member in ("bandwidth", "streams", "body", "monthly_bytes"):
        limits: dict[str, Any] = {member: 5}
        assert Meter(chain(Scope(**limits), Scope())).opener(session, pacer, ASK) is not session


def test_a_month_begins_anew() -> None:
    """Requests and bytes are counted by the calendar month, to the second."""
    meter = Meter(chain(Scope(monthly_requests=2, monthly_bytes=1000)))
    last = MONTH.ends - 0.5
    assert [meter.admit(ASK, 0.0, last) is None for _ in range(3)] == [True, True, False]
    assert meter.admit(ASK, 0.0, MONTH.ends) is None
    meter.fold(month_of(MONTH.ends).name, 600, 400)
    refusal = refused(meter, wall=MONTH.ends + 1)
    assert refusal.code == "quota_exhausted"
    assert "1000 bytes a month" in refusal.sentence


# ---- the tunnel's own brake


def test_each_address_has_its_own_rate() -> None:
    """A loop from one address is stopped, and others come in."""
    meter = Meter(chain(Scope()), Brake(TunnelLimits(None, 4)))
    assert meter.limited
    assert not meter.paced
    assert [admitted(meter, 0.0) for _ in range(3)] == [True, False, False]
    assert admitted(meter, 0.0, Ask("192.0.2.2"))
    refusal = refused(meter)
    assert "from one address" in refusal.sentence
    assert refusal.retry_after == pytest.approx(0.25)


def test_links_of_one_tunnel_share_its_brake() -> None:
    """The same limits of the same name are one brake, others are another; nobody keeps one that is not used."""
    brakes = Brakes()
    one = brakes.of("demo", TunnelLimits(5))
    assert brakes.of("demo", TunnelLimits(5)) is one
    assert brakes.of("demo", TunnelLimits(6)) is not one
    assert brakes.of("other", TunnelLimits(5)) is not one


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
        ("un:known", "un:known"),
        ("", ""),
    ],
)
def test_who_counts_as_one_caller(address: str, network: str) -> None:
    """An IPv4 address however it is written; of IPv6 the network that one subscriber has."""
    assert network_of(address) == network


def test_addresses_are_forgotten_within_a_bound() -> None:
    """The one that asked last is kept; a flood of addresses costs bounded memory."""
    brake = Brake(TunnelLimits(None, 1))
    for number in range(MOST_ADDRESSES + 10):
        brake.spend(f"10.{number >> 8}.{number & 255}.1", 0.0)
        brake.spend("192.0.2.1", 0.0)
    assert len(brake._addresses) == MOST_ADDRESSES
    assert not brake.admits("192.0.2.1", 1.0)
    assert brake.admits("10.0.0.1", 0.0), "the oldest was forgotten"


# ---- what is said


def test_sentences() -> None:
    """Each says what the limit is and what to do, and speaks of the tunnel only."""
    wall = MONTH.ends - 86_400.5
    cases = [
        (too_fast(10, 1.2), "this tunnel takes at most 10 requests a second; wait 2 seconds, then send it again"),
        (
            too_fast(1, 0.01, for_each_address=True),
            "this tunnel takes at most 1 request a second from one address; wait 1 second, then send it again",
        ),
        (
            month_is_used_up(20_000, "request", MONTH, wall),
            "the 20000 requests a month of this tunnel are used up; they are counted anew from 2026-11-01T00:00:00Z",
        ),
        (too_many_streams(1), "this tunnel carries at most 1 request at once; send it again when one has ended"),
        (too_large(1024), "this tunnel takes at most 1024 bytes in a request body"),
    ]
    assert [(one.sentence, len(one.sentence) < 200) for one, _ in cases] == [(text, True) for _, text in cases]


LIMITS = st.integers(1, MAX_LIMIT)


@given(LIMITS, st.floats(0.001, 1e6))
def test_fields_are_structured(limit: int, wait: float) -> None:
    """`RateLimit-Policy` and `RateLimit` parse strictly, name the same policy, and hold what the draft demands."""
    for refusal in (
        too_fast(limit, wait),
        too_fast(limit, wait, for_each_address=True),
        month_is_used_up(limit, "request", MONTH, MONTH.ends - wait),
        month_is_used_up(limit, "byte", MONTH, MONTH.ends - wait),
        too_many_streams(limit),
    ):
        assert len(refusal.sentence) < 200
        fields = dict(refusal.policy)
        assert list(fields) == [b"RateLimit-Policy", b"RateLimit"]
        ((name, policy),) = parse(fields[b"RateLimit-Policy"]).items()
        assert policy["q"] == min(limit, MOST_INTEGER)
        assert policy.keys() <= {"q", "w", "qu"}
        assert policy.get("qu", "requests") in ("requests", "content-bytes", "concurrent-requests")
        assert int(policy.get("w", 1)) > 0
        assert refusal.retry_after is not None
        assert parse(fields[b"RateLimit"]) == {name: {"r": 0, "t": max(math.ceil(refusal.retry_after), 1)}}


def test_the_fields_of_the_draft() -> None:
    """As they stand in an answer."""
    assert too_fast(10, 0.1).policy == (
        (b"RateLimit-Policy", b'"requests";q=10;w=1'),
        (b"RateLimit", b'"requests";r=0;t=1'),
    )
    assert month_is_used_up(5, "byte", MONTH, MONTH.ends - 60).policy == (
        (b"RateLimit-Policy", b'"month-bytes";q=5;qu="content-bytes";w=2678400'),
        (b"RateLimit", b'"month-bytes";r=0;t=60'),
    )
    assert too_large(5).policy == ()


@pytest.mark.parametrize("value", [b"", b'"a";q=1;', b"a;q=1", b'"a";q=1.5', b'"a";Q=1', b'"a";q=1234567890123456'])
def test_the_reader_of_fields_is_strict(value: bytes) -> None:
    """What is no list of strings with integers and strings is found."""
    with pytest.raises(AssertionError):
        parse(value)
