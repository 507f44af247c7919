"""Who may call a tunnel, as an agent asks for it in its HELLO: visitor keys, users with passwords. Pure.

It alone decides which rules are well formed. Hashes are bounded, because the relay computes what an agent only sends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from relay.wire.errors import RemoteProtocolError

VISITOR_KEY: Final = "visitor_key"
BASIC: Final = "basic"
MAX_USERS: Final = 32
MAX_USER: Final = 64
MAX_HASH: Final = 256
MAX_PASSWORD: Final = 1024
"""Characters, of what a user chooses and of what a visitor sends."""
MAX_MEMORY: Final = 128 * 1024
"""KiB that one check of a password may take."""
MAX_PASSES: Final = 6
MAX_LANES: Final = 8
_MAX_WAYS: Final = 8
_MAX_WAY: Final = 32

# The PHC string format, parameters in the order that Argon2's own tools write; salt 8 to 64 bytes, hash 16 to 64.
_HASH: Final = re.compile(
    r"\$argon2id\$v=19\$m=([1-9][0-9]{0,6}),t=([1-9][0-9]?),p=([1-9][0-9]?)"
    r"\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})"
)


@dataclass(frozen=True, slots=True)
class AccessRules:
    """What one tunnel asks of its visitors. Each way that is given lets in by itself; at least one is."""

    visitor_keys: bool = False
    basic: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Users with the argon2id hash of their password."""

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways in, as WELCOME repeats them."""
        return (VISITOR_KEY,) * self.visitor_keys + (BASIC,) * bool(self.basic)

    def hash_of(self, user: str) -> str | None:
        """The hash of a user's password; None for one that there is not."""
        return next((known for name, known in self.basic if name == user), None)


def why_not_user(user: str) -> str:
    """What is wrong with the name of a user, in a few words; empty when nothing is."""
    if not 1 <= len(user) <= MAX_USER:
        return f"a user has 1 to {MAX_USER} characters"
    if ":" in user or not user.isprintable():
        return "a user has printable characters, none of them a colon"
    return ""


def why_not_hash(text: str) -> str:
    """What is wrong with a hash, in a few words; empty when nothing is."""
    match = _HASH.fullmatch(text) if len(text) <= MAX_HASH else None
    if match is None or any(len(part) % 4 == 1 for part in match.groups()[3:]):
        return "a hash is an argon2id hash, $argon2id$v=19$m=…,t=…,p=…$SALT$HASH"
    memory, passes, lanes = (int(digits) for digits in match.groups()[:3])
    if not 8 * lanes <= memory <= MAX_MEMORY or passes > MAX_PASSES or lanes > MAX_LANES:
        return (
            f"a hash has at most m={MAX_MEMORY} (KiB), t={MAX_PASSES} and p={MAX_LANES}, and at least 8 KiB for each p"
        )
    return ""


def rules_to_json(access: Mapping[str, AccessRules]) -> dict[str, Any]:
    """The member `access` of HELLO."""
    return {name: {"visitor_keys": rules.visitor_keys, "basic": dict(rules.basic)} for name, rules in access.items()}


def rules_from_json(value: object, names: tuple[str, ...]) -> dict[str, AccessRules]:
    """The rules of some of `names`. Raises `RemoteProtocolError` that names what is wrong, and repeats no hash."""
    return {name: _rules(f"hello: access of {name}", given) for name, given in by_name("access", value, names).items()}


def by_name(member: str, value: object, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """A member of HELLO that says something of some of `names`. Raises `RemoteProtocolError` for any other form."""
    if not isinstance(value, dict):
        raise RemoteProtocolError(f"hello: {member} must be an object")
    for name, given in value.items():
        if name not in names:
            raise RemoteProtocolError(f"hello: {member} has a name that is not claimed: {name[:80]!r}")
        if not isinstance(given, dict):
            raise RemoteProtocolError(f"hello: {member} of {name} must be an object")
    return value


def _rules(where: str, given: Mapping[str, Any]) -> AccessRules:
    keys, users = given.get("visitor_keys", False), given.get("basic", {})
    if not isinstance(keys, bool):
        raise RemoteProtocolError(f"{where}: visitor_keys must be true or false")
    if not isinstance(users, dict) or len(users) > MAX_USERS:
        raise RemoteProtocolError(f"{where}: basic must be an object of at most {MAX_USERS} users")
    for user, known in users.items():
        wrong = why_not_user(user) or ("a hash is a string" if not isinstance(known, str) else why_not_hash(known))
        if wrong:
            raise RemoteProtocolError(f"{where}: basic: {wrong}")
    if not keys and not users:  # nobody could come in, or everybody: neither was meant
        raise RemoteProtocolError(f"{where} lets nobody in: visitor_keys is false and basic is empty")
    return AccessRules(keys, tuple(users.items()))


def ways_from_json(value: object) -> tuple[str, ...]:
    """The member `access` of a tunnel of WELCOME. Raises `RemoteProtocolError`."""
    ways = value if isinstance(value, list) and len(value) <= _MAX_WAYS else [None]
    if not all(isinstance(way, str) and len(way) <= _MAX_WAY and way.isprintable() for way in ways):
        raise RemoteProtocolError(f"welcome: access must be a list of at most {_MAX_WAYS} short strings")
    return tuple(ways)


def not_enforced(asked: Mapping[str, AccessRules], echoed: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The names whose rules the relay did not repeat just as they were asked for: their tunnels would be too open."""
    return [name for name, rules in asked.items() if set(echoed.get(name, ())) != set(rules.ways)]
