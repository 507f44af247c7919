"""An agent's counts, made from its events: each thing once, whatever the events hold."""

from __future__ import annotations

from typing import Any

from relay.agent.tally import ERRORS, Tally
from relay.telemetry.traffic import CLASSES


def told(*events: dict[str, Any]) -> Tally:
    tally = Tally()
    for event in events:
        tally.hear(event)
    return tally


def request(**members: Any) -> dict[str, Any]:
    return {"event": "request", "subdomain": "demo", "method": "GET", "path": "/", "status": 200, **members}


def test_requests_by_class_and_error() -> None:
    """The class is the local service's, none without an answer; what nobody has heard of is counted as other."""
    tally = told(
        request(duration=0.02),
        request(duration=0.02, status=404),
        request(duration=0.5, status=0, error="local_refused"),
        request(duration=2.0, status=999),
        request(duration=2.0, status=200, error="a visitor's own word"),
        request(status=None),
    )
    assert dict(tally.requests) == {
        ("2xx", ""): 1,
        ("4xx", ""): 1,
        ("none", "local_refused"): 1,
        ("other", ""): 1,
        ("2xx", "other"): 1,
        ("none", ""): 1,
    }
    assert all(status in CLASSES and error in ERRORS for status, error in tally.requests)
    assert sum(tally.duration.counts) == 6
    assert tally.duration.total == 4.54


def test_a_link_is_lost_only_once_it_was_up() -> None:
    """An attempt in vain is one; so is a refusal, which is told by an event of its own besides."""
    tally = told(
        {"event": "disconnected", "slot": 0, "reason": "no connection within 3 seconds", "retry_in": 0.1},
        {"event": "connected", "slot": 0},
        {"event": "connected", "slot": 1},
        {"event": "disconnected", "slot": 1, "reason": "the other side does not answer", "retry_in": 0.1},
        {"event": "refused", "code": "draining", "message": "Come again.", "retry_after": 1.0},
        {"event": "disconnected", "slot": 1, "reason": "Come again.", "retry_in": 1.0},
    )
    assert (tally.opened, tally.lost, tally.failed, tally.refused) == (2, 1, 2, 1)
    assert tally.up == {0}


def test_a_link_that_was_given_up_is_not_lost() -> None:
    """Other settings took its place."""
    tally = told({"event": "connected", "slot": 0}, {"event": "connected", "slot": 1}, {"event": "released", "slot": 0})
    assert (tally.up, tally.lost) == ({1}, 0)


def test_keys() -> None:
    """Mints, and what failed of mints and renewals."""
    tally = told(
        {"event": "minted"}, {"event": "mint_failed", "message": "No."}, {"event": "renewal_failed", "slot": 1}
    )
    assert (tally.minted, tally.key_failures) == (1, 2)


def test_an_agent_is_ready_while_a_link_is_up_and_it_does_not_stop() -> None:
    """The reason of the last attempt is on one line, whatever it holds."""
    tally = Tally()
    assert tally.reasons() == ["no link to the relay is up"]
    tally.hear({"event": "disconnected", "slot": 0, "reason": "no\r\nway"})
    assert tally.reasons() == ["no link to the relay is up: no way"]
    tally.hear({"event": "mint_failed", "message": "The key is over."})
    assert tally.reasons() == ["no link to the relay is up: The key is over."]
    tally.hear({"event": "connected", "slot": 0})
    assert tally.reasons() == []
    tally.hear({"event": "stopping", "open": 0})
    assert tally.reasons() == ["the agent stops"]


def test_events_go_on_to_who_reports_them() -> None:
    """Untouched, and one that is not known as well."""
    tally, heard = Tally(), list[dict[str, object]]()
    report = tally.listening(heard.append)
    event: dict[str, object] = {"event": "something new"}
    report(event)
    assert heard == [event]
