"""`relay signers`: the list names the retired ones too, and nothing is retired without a yes."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.cli.fakerelay import FakeRelay, problem
from tests.cli.test_projects import terminal

STOLEN, OTHER = "node_000000000001", "node_000000000002"


def signer(kid: str, retired_at: str | None) -> dict[str, Any]:
    at = "2027-01-15T08:00:00.000000Z"
    return {"kid": kid, "public_key": "A" * 43, "node": "host-a", "created_at": at, "retired_at": retired_at}


def test_list(command: Command, relay: FakeRelay) -> None:
    """One row each."""
    signers = [signer(STOLEN, "2027-01-16T08:00:00.000000Z"), signer(OTHER, None)]
    relay.on("GET /signers", {"items": signers})
    header, first, second = command("signers", "list").out.splitlines()
    assert header.split() == ["ID", "MADE", "ON", "SINCE", "RETIRED"]
    assert (first.split()[:2], len(first.split())) == ([STOLEN, "host-a"], 6)
    assert (second.split()[:2], len(second.split())) == ([OTHER, "host-a"], 4)
    assert json.loads(command("signers", "list", "--json").out) == signers


def test_retire_is_asked(command: Command, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal; without one --yes is demanded. Repeating it is no failure, and is said."""
    call = f"DELETE /signers/{STOLEN}"
    relay.on(call, {"kid": STOLEN, "retired": True}, {"kid": STOLEN, "retired": False})
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    result = command("signers", "retire", STOLEN)
    assert (result.code, relay.asked) == (2, [])
    assert "--yes" in result.err
    terminal(monkeypatch, "n\n")
    assert command("signers", "retire", STOLEN).code == 1
    assert relay.asked == []
    terminal(monkeypatch, "y\n")
    assert command("signers", "retire", STOLEN).out == f"Retired: {STOLEN}\n"
    assert command("signers", "retire", STOLEN, "--yes").out == f"Retired before: {STOLEN}\n"
    assert json.loads(command("signers", "retire", STOLEN, "-y", "--json").out) == {"kid": STOLEN, "retired": False}


def test_an_unknown_one(command: Command, relay: FakeRelay) -> None:
    """The relay's sentence."""
    relay.on(f"DELETE /signers/{STOLEN}", problem(404, "There is no signing key."))
    result = command("signers", "retire", STOLEN, "--yes")
    assert (result.code, result.out) == (4, "")
    assert "There is no signing key." in result.err
