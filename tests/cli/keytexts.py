"""Keys for tests of the commands, and records of keys as the API gives them."""

from __future__ import annotations

from typing import Any

from relay.keys.forms import Kind, new_id, shown
from relay.keys.private import PrivateKey
from relay.keys.scopes import Scope
from relay.keys.tokens import Grant, SigningKey

SIGNER = SigningKey.generate()
START = 1_800_000_000.0


def private(kind: Kind = Kind.MASTER) -> str:
    """A new operator or master key."""
    return PrivateKey.generate(kind).text


def signed(kind: Kind = Kind.CHILD) -> str:
    """A new child or visitor key."""
    tunnel = "mcp-me" if kind is Kind.VISITOR else ""
    grant = Grant(kind, new_id(kind), "proj_a_000001", (), Scope(), START, START + 86_400, tunnel)
    return SIGNER.sign(grant, "tunnels.localhost")


def mistyped(text: str) -> str:
    """The same with one character changed: right in form, wrong in its checksum."""
    at = len(text) - 20
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


def record(key_id: str, **changed: Any) -> dict[str, Any]:
    """A key as the API gives it."""
    kind = key_id.split("_")[1]
    return {
        "id": key_id, "kind": kind, "project": "proj_a_000001", "project_name": "a", "parent": None, "label": "",
        "scope": Scope().to_json(), "tunnel": None, "public_key": None,
        "created_at": "2027-01-15T08:00:00.000000Z", "expires_at": None, "revoked_at": None, "revoked_by": None,
        "state": "valid", "token_version": 0, "successor": None, "last_used_at": None, "last_used_from": None,
        **changed,
    }  # fmt: skip


def id_of(text: str) -> str:
    """The public id."""
    return shown(text)
