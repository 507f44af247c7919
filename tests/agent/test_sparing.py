"""Requests that go well, one after another: which are told, and that asking changes nothing."""

from __future__ import annotations

from relay.agent.sparing import Event, Sparing


def request(name: str, status: int, **members: object) -> Event:
    return {"event": "request", "subdomain": name, "status": status, **members}


def test_only_what_changes_is_told() -> None:
    """Of each tunnel by itself; whatever is no request always is."""
    told: list[Event] = []
    sparing = Sparing(told.append)
    said = [
        (request("a", 200), True),
        (request("a", 304), False),
        (request("b", 200), True),
        (request("a", 404), True),
        (request("a", 404), True),
        (request("b", 204), False),
        ({"event": "connected", "slot": 0}, True),
        (request("a", 200), True),
        (request("a", 200, error="cancelled"), True),
        (request("a", 0, error="local_refused"), True),
        (request("a", 200), True),
        (request("a", 200), False),
    ]
    for event, _ in said:
        sparing(event)
    assert told == [event for event, wanted in said if wanted]


def test_who_asks_before_is_told_the_same() -> None:
    """Asking changes nothing, however often."""
    told: list[Event] = []
    sparing = Sparing(told.append)
    for status, error, wanted in (
        (200, "", True),
        (200, "", False),
        (500, "", True),
        (200, "x", True),
        (200, "", True),
    ):
        assert [sparing.wants("a", status, error) for _ in range(2)] == [wanted, wanted]
        before = len(told)
        sparing(request("a", status, **({"error": error} if error else {})))
        assert len(told) - before == wanted
