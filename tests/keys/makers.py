"""Keys, grants, tokens good and bad, and what property tests draw from."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import strategies as st

from relay.keys import compact, forms, signatures
from relay.keys.forms import DIGITS, Kind
from relay.keys.private import PrivateKey
from relay.keys.scopes import LABEL, LIMITS, MAX_LIMIT, Scope
from relay.keys.tokens import Grant, SigningKey, TokenVerifier, new_id

NOW = 1_800_000_000.0
DOMAIN = "tunnels.example.com"
RELAY = "relay.example.com"

MASTER = PrivateKey(Kind.MASTER, bytes(range(32)))
OPERATOR = PrivateKey(Kind.OPERATOR, bytes(range(1, 33)))
NODE = SigningKey.from_secret(bytes(range(2, 34)))
OTHER_NODE = SigningKey.from_secret(bytes(range(3, 35)))
VERIFIER = TokenVerifier(DOMAIN, {NODE.kid: NODE.public})

LINEAGE = (OPERATOR.id, MASTER.id)
CHILD = Grant(
    Kind.CHILD, f"mtk_child_{'c' * 12}", "proj_mcp_0aZ9bY", LINEAGE, Scope(("mcp-*",), 2, 50, 10**6), NOW, NOW + 86_400
)
VISITOR = Grant(
    Kind.VISITOR, f"mtk_visitor_{'v' * 12}", "proj_mcp_0aZ9bY", LINEAGE, Scope(), NOW, NOW + 60, tunnel="mcp-me"
)
CHILD_TEXT = NODE.sign(CHILD, DOMAIN)
VISITOR_TEXT = NODE.sign(VISITOR, DOMAIN)
TEXTS = {
    Kind.OPERATOR: OPERATOR.text,
    Kind.MASTER: MASTER.text,
    Kind.CHILD: CHILD_TEXT,
    Kind.VISITOR: VISITOR_TEXT,
}
IDS = {Kind.OPERATOR: OPERATOR.id, Kind.MASTER: MASTER.id, Kind.CHILD: CHILD.key_id, Kind.VISITOR: VISITOR.key_id}

HEADER = {"alg": "EdDSA", "typ": "mtk-child+jwt", "kid": NODE.kid}
CLAIMS: dict[str, Any] = {
    "iss": DOMAIN,
    "aud": DOMAIN,
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 86_400,
    "jti": CHILD.key_id,
    "prj": CHILD.project,
    "lin": list(LINEAGE),
    "scp": {"names": ["mcp-*"], "tunnels": 2, "rate": 50, "bandwidth": 10**6},
}


def token(header: object, payload: object, secret: bytes = NODE.secret) -> str:
    """A compact token, signed rightly whatever stands in it; a `str` is JSON already, `bytes` are what they are."""
    parts = [each if isinstance(each, bytes) else _json(each) for each in (header, payload)]
    signed = ".".join(compact.encode(each) for each in parts)
    return f"{signed}.{compact.encode(signatures.sign(secret, signed.encode()))}"


def _json(value: object) -> bytes:
    return (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "surrogatepass")


def child_text(header: object = HEADER, payload: object = CLAIMS, secret: bytes = NODE.secret) -> str:
    """The text of a child key with a right checksum."""
    return forms.with_checksum(Kind.CHILD.prefix + token(header, payload, secret))


labels = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
patterns = st.sampled_from(
    [
        pattern
        for length in range(1, 4)
        for pattern in map("".join, itertools.product(("a", "0b", "mcp", "-x", "*"), repeat=length))
        if LABEL.fullmatch(pattern.replace("*", "a"))
    ]
)
limits = st.none() | st.integers(1, MAX_LIMIT)
scopes = st.builds(Scope, st.lists(patterns, min_size=1, max_size=5).map(tuple), *[limits] * len(LIMITS))
times = st.integers(10**9, 4 * 10**12).map(lambda milliseconds: milliseconds / 1000)
secrets = st.binary(min_size=32, max_size=32)
private_kinds = st.sampled_from([Kind.OPERATOR, Kind.MASTER])
public_ids = st.builds(
    lambda kind, digits: kind.prefix + digits, st.sampled_from(Kind), st.text(DIGITS, min_size=12, max_size=12)
)
simple_json = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
any_json = (
    simple_json | st.lists(simple_json, max_size=2) | st.dictionaries(st.text(max_size=3), simple_json, max_size=2)
)


@st.composite
def grants(draw: st.DrawFn) -> Grant:
    """Any grant that a relay may sign."""
    kind = draw(st.sampled_from([Kind.CHILD, Kind.VISITOR]))
    begin = draw(times)
    return Grant(
        kind,
        new_id(kind),
        draw(st.from_regex(r"proj_[0-9A-Za-z_]{1,40}", fullmatch=True)),
        tuple(draw(st.lists(public_ids, max_size=8))),
        draw(scopes),
        begin,
        begin + draw(st.integers(1, 10**9)) / 8,
        draw(labels) if kind is Kind.VISITOR else "",
    )
