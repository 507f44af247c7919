"""Compact tokens (JWS) read strictly, before any signature: what is cheap to refuse is refused here.

It alone decides what a token's form is: three parts of base64url within bounds, a header of exactly `alg`, `typ` and
`kid`, JSON without duplicate members, NaN or bottomless nesting. It knows no key and proves nothing.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from relay.keys.errors import BadKey, Reason

ALGORITHM = "EdDSA"
MAX_HEADER = 256
MAX_PAYLOAD = 3584
"""Characters of base64url in the first and the second part."""

# 64 bytes are 86 characters, and of the last one only the two upper bits count: one signature has one spelling.
SIGNATURE = r"[0-9A-Za-z_-]{85}[AQgw]"

_FORM = re.compile(rf"(([0-9A-Za-z_-]{{4,{MAX_HEADER}}})\.([0-9A-Za-z_-]{{4,{MAX_PAYLOAD}}}))\.({SIGNATURE})")
_MEMBERS = frozenset(("alg", "typ", "kid"))
_HIGHEST_TIME = 1e11  # seconds: the year 5138; beyond it a number is no time


@dataclass(frozen=True, slots=True)
class Token:
    """A token in its parts; nothing of it is proven."""

    signed: bytes
    kid: str
    payload: str
    signature: bytes


def read_token(text: str, typ: str) -> Token:
    """The parts of a compact token whose header says `typ`. Raises BadKey: form, algorithm, type."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise BadKey(Reason.MALFORMED, "The token is not three parts of base64url, the last an Ed25519 signature.")
    signed, head, payload, signature = match.groups()
    header = read_object(head)
    if header.get("alg") != ALGORITHM:
        raise BadKey(Reason.ALGORITHM, f"The token is not signed with {ALGORITHM}, the only algorithm that counts.")
    if header.get("typ") != typ:
        raise BadKey(Reason.TYPE, f"The token is of another type than {typ}.")
    kid = header.get("kid")
    if not isinstance(kid, str) or header.keys() != _MEMBERS:
        raise BadKey(Reason.MALFORMED, "The token's header must have alg, typ and kid, and nothing else.")
    return Token(signed.encode("ascii"), kid, payload, decode(signature))


def read_object(segment: str) -> dict[str, Any]:
    """The JSON object in one part of a token. Raises BadKey."""
    try:
        value = strict_json(decode(segment).decode())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise BadKey(Reason.MALFORMED, "The token holds something that is not a plain JSON object.")
    return value


def read_time(claims: dict[str, Any], name: str) -> float:
    """A time among the claims, in seconds since the epoch. Raises BadKey."""
    value = claims.get(name)
    # Compared before it is converted: an integer may have thousands of digits. Also refuses the infinity that 1e999 is.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _HIGHEST_TIME:
        raise BadKey(Reason.MALFORMED, f"The token's {name} is not a time in seconds since 1970.")
    return float(value)


def strict_json(text: str) -> object:
    """A JSON value without duplicate members and NaN. Raises ValueError for everything else, however deep or long."""
    try:
        value: object = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def encode(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(segment: str) -> bytes:
    """The bytes of base64url without padding. Raises ValueError; the alphabet is the caller's to check."""
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def decode_strictly(segment: str) -> bytes:
    """The bytes of which this is the one spelling in base64url without padding. Raises ValueError."""
    data = decode(segment)
    if encode(data) != segment:
        raise ValueError("not base64url without padding, or not the one spelling of its bytes")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
