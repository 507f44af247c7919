"""`relay usage` and `relay plans`: what is asked of the relay, and how a month and limits read."""

from __future__ import annotations

import json
import re
from typing import Any

from relay.keys.scopes import Scope
from tests.cli.conftest import Command
from tests.cli.fakerelay import FakeRelay

HOBBY = Scope(tunnels=3, bandwidth=1_250_000, monthly_requests=20_000).limits()
AMOUNTS: dict[str, Any] = {
    "requests": 1234, "bytes_in": 1_400_000, "bytes_out": 2_000_000_000, "limits": HOBBY,
    "left": {"requests": 18_766, "bytes": 10**9},
}  # fmt: skip
PROJECT = {"project": "proj_one_000001", "project_name": "one", "plan": "hobby", **AMOUNTS}
KEY = {
    "key": "mtk_child_000000000001", "kind": "child", "label": "laptop", "project": "proj_one_000001",
    "project_name": "one", **AMOUNTS, "left": {"requests": None, "bytes": None},
}  # fmt: skip
USAGE: dict[str, Any] = {
    "month": "2027-01", "ends_at": "2027-02-01T00:00:00.000000Z", "projects": [PROJECT], "keys": [KEY], "more": False,
}  # fmt: skip


def fields(line: str) -> list[str]:
    """The cells of a row."""
    return re.split(r"  +", line.strip())


def test_a_month_reads_well(command: Command, relay: FakeRelay) -> None:
    """Until when, a table of projects, a table of keys; for programs what the relay said."""
    relay.on("GET /usage", USAGE)
    month, _, head, project, _, keys, key = command("usage").out.splitlines()
    assert month.startswith("2027-01, until 2027-0")
    assert head.split() == ["PROJECT", "PLAN", "REQUESTS", "IN", "OUT", "LEFT"]
    assert fields(project) == ["one", "hobby", "1234", "1.4 MB", "2.0 GB", "18766 requests, 1.0 GB"]
    assert keys.split() == ["KEY", "PROJECT", "LABEL", "REQUESTS", "IN", "OUT", "LEFT"]
    assert fields(key) == ["mtk_child_000000000001", "one", "laptop", "1234", "1.4 MB", "2.0 GB", "no limit"]
    assert relay.asked[0].query == {}
    assert json.loads(command("usage", "--project", "one", "--month", "2026-11", "--json").out) == USAGE
    assert relay.asked[1].query == {"project": "one", "month": "2026-11"}


def test_what_is_not_there_is_not_shown(command: Command, relay: FakeRelay) -> None:
    """A child key is told of itself only; a relay that nobody used says so; of many there are more."""
    relay.on("GET /usage", {**USAGE, "projects": []})
    assert "PLAN" not in command("usage").out
    relay.on("GET /usage", {**USAGE, "projects": [], "keys": []})
    assert command("usage").out.splitlines()[1:] == ["", "Nothing was used."]
    relay.on("GET /usage", {**USAGE, "more": True})
    assert "there are more" in command("usage").out.splitlines()[-1]


def test_plans_read_well(command: Command, relay: FakeRelay) -> None:
    """Each with its limits, in words; the default is marked."""
    items = [
        {"name": "free", "default": True, "limits": Scope().limits()},
        {"name": "hobby", "default": False, "limits": HOBBY},
        {"name": "own", "default": False, "limits": Scope(body=2**20, monthly_bytes=2**30, rate=7, streams=8).limits()},
    ]  # fmt: skip
    relay.on("GET /plans", {"items": items})
    head, *rows = command("plans").out.splitlines()
    assert fields(head)[:5] == ["PLAN", "TUNNELS", "REQUESTS AT ONCE", "REQUESTS A SECOND", "BANDWIDTH EACH WAY"]
    assert [fields(row) for row in rows] == [
        ["free", "yes"],
        ["hobby", "3", "10 Mbit/s", "20000", "no"],
        ["own", "8", "7", "1 MiB", "1 GiB", "no"],
    ]
    assert json.loads(command("plans", "--json").out) == items


def test_strange_amounts_steer_no_terminal(command: Command, relay: FakeRelay) -> None:
    """Whatever answers at the relay's address."""
    hostile = "\x1b[2J"
    strange = {**PROJECT, "requests": hostile, "bytes_in": hostile, "left": {"requests": hostile, "bytes": hostile}}
    relay.on("GET /usage", {**USAGE, "month": hostile, "ends_at": hostile, "projects": [strange]})
    relay.on("GET /plans", {"items": [{"name": hostile, "limits": {"tunnels": hostile, "body": hostile}}]})
    for words in (("usage",), ("plans",)):
        answer = command(*words)
        assert (answer.code, "\x1b" in answer.out) == (0, False)
