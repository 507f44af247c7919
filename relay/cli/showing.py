"""How a key, a name and a number of things read: the same words in every command that shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from relay.cli.limit_options import limit_facts, usage_facts
from relay.cli.tables import cell, facts, many, when

KEY_COLUMNS = ("ID", "PROJECT", "LABEL", "STATE", "EXPIRES", "LAST USED")


def key_row(key: Mapping[str, Any]) -> tuple[object, ...]:
    """A key under `KEY_COLUMNS`."""
    return (
        key.get("id"),
        project_of(key),
        key.get("label"),
        key.get("state"),
        when(key["expires_at"]) if key.get("expires_at") else "never",
        last_use(key) or "never",
    )


def project_of(thing: Mapping[str, Any]) -> str:
    """The name of the project that it belongs to, else its id."""
    return cell(thing.get("project_name") or thing.get("project"))


def last_use(key: Mapping[str, Any]) -> str:
    """When and from where; empty for a key that was never used."""
    if not key.get("last_used_at"):
        return ""
    place = key.get("last_used_from")
    return when(key["last_used_at"]) + (f" from {cell(place)}" if place else "")


def about(key: Mapping[str, Any]) -> str:
    """`mtk_master_… (master key of the project mcp-server)`."""
    project = project_of(key)
    return f"{cell(key.get('id'))} ({cell(key.get('kind'))} key" + (f" of the project {project})" if project else ")")


def show_key(key: Mapping[str, Any], before: Iterable[tuple[str, object]] = ()) -> None:
    """Prints everything that is known of a key."""
    scope = key.get("scope") or {}
    ended = key.get("revoked_at")
    facts(
        [
            *before,
            ("key", key.get("id")),
            ("kind", key.get("kind")),
            ("state", key.get("state")),
            ("project", project_of(key)),
            ("label", key.get("label")),
            ("minted by", key.get("parent")),
            ("tunnel", key.get("tunnel")),
            ("subdomains", scope_names(scope)),
            *limit_facts(scope, key.get("effective")),
            *usage_facts(key.get("usage")),
            ("created", when(key.get("created_at"))),
            ("expires", when(key["expires_at"]) if key.get("expires_at") else "never"),
            ("revoked", f"{when(ended)} by {cell(key.get('revoked_by')) or 'the relay'}" if ended else None),
            ("token version", key.get("token_version") or None),
            ("replaced by", key.get("successor")),
            ("last used", last_use(key) or "never"),
        ]
    )


def scope_names(scope: Mapping[str, Any]) -> str:
    """The patterns of subdomains; `any` for all."""
    names = scope.get("names") or ["*"]
    return "any" if names == ["*"] else cell(names)


def revoked_lines(counts: Mapping[str, Any], given: str | None) -> list[str]:
    """What a revocation did, a line for each kind with a count. The kind of the key that was `given` comes first, and
    what fell with it is told apart; None: no key was given.
    """
    lines = []
    for kind in sorted(("operator", "master", "child", "visitor"), key=lambda kind: kind != given):
        count = number(counts, kind)
        if count:
            below = given is not None and (kind != given or count > 1)
            lines.append(f"Revoked {many(count, f'{kind} key')}{' (cascade)' if below else ''}.")
    return lines


def number(counts: Mapping[str, Any], name: str) -> int:
    """A count of an answer; 0 where there is none."""
    value = counts.get(name)
    return value if isinstance(value, int) else 0
