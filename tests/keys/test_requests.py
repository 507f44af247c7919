"""Request tokens: accepted exactly where every claim is right, refused with a reason, never with another exception."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from relay.keys import requests
from relay.keys.errors import BadKey, Reason
from relay.keys.forms import Kind
from relay.keys.private import PrivateKey
from relay.keys.requests import LEEWAY, MAX_LENGTH, read_kid, verify_request
from tests.keys.makers import CHILD, MASTER, NODE, NOW, OPERATOR, RELAY, any_json, private_kinds, secrets, token

HEADER = {"alg": "EdDSA", "typ": requests.TYPE, "kid": MASTER.id}
CLAIMS: dict[str, Any] = {"iss": MASTER.id, "aud": RELAY, "iat": NOW, "exp": NOW + 60, "jti": "a1"}
AUDIENCES = frozenset((RELAY, "127.0.0.1"))


def made(header: object = HEADER, payload: object = CLAIMS, secret: bytes = MASTER.secret) -> str:
    return token(header, payload, secret)


def refusal(text: str, public: bytes = MASTER.public, now: float = NOW) -> BadKey:
    with pytest.raises(BadKey) as caught:
        verify_request(text, public, AUDIENCES, now)
    return caught.value


@given(private_kinds, secrets, st.floats(0, 4e9), st.floats(0.001, 3600))
def test_what_a_key_signs_is_accepted(kind: Kind, secret: bytes, now: float, life: float) -> None:
    """A key's own token proves it from the first moment to the last, and not long after."""
    key = PrivateKey(kind, secret)
    text = key.sign_request(RELAY, now, life)
    assert len(text) < 500
    assert read_kid(text) == key.id
    assert verify_request(text, key.public, AUDIENCES, now) == key.id
    assert verify_request(text, key.public, AUDIENCES, now + life - 0.001) == key.id
    assert refusal(text, key.public, now + life + 2 + LEEWAY).reason is Reason.EXPIRED


def test_two_tokens_of_one_moment_differ() -> None:
    """Each token has a `jti` of its own."""
    assert MASTER.sign_request(RELAY, NOW) != MASTER.sign_request(RELAY, NOW)


@pytest.mark.parametrize("life", [0, -1, 3600.1, float("nan"), float("inf")])
def test_a_life_that_no_relay_accepts_is_not_signed(life: float) -> None:
    """The key refuses to sign for longer than an hour, or for no time at all."""
    with pytest.raises(ValueError, match="3600 seconds"):
        MASTER.sign_request(RELAY, NOW, life)


def test_others_can_make_and_read_them() -> None:
    """PyJWT, all its own checks on, reads our token; what it makes without our help is accepted."""
    ours = MASTER.sign_request(RELAY, NOW)
    options: Any = {"verify_exp": False, "verify_iat": False, "require": ["iss", "aud", "iat", "exp", "jti"]}
    public = Ed25519PublicKey.from_public_bytes(MASTER.public)
    claims = jwt.decode(ours, public, algorithms=["EdDSA"], audience=RELAY, issuer=MASTER.id, options=options)
    assert claims["exp"] - claims["iat"] == 60
    private = Ed25519PrivateKey.from_private_bytes(MASTER.secret)
    theirs = jwt.encode(CLAIMS, private, algorithm="EdDSA", headers={"typ": requests.TYPE, "kid": MASTER.id})
    assert verify_request(theirs, MASTER.public, AUDIENCES, NOW) == MASTER.id


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({**HEADER, "alg": "none"}, Reason.ALGORITHM),
        ({**HEADER, "alg": "HS256"}, Reason.ALGORITHM),
        ({**HEADER, "alg": "eddsa"}, Reason.ALGORITHM),
        ({**HEADER, "alg": ["EdDSA"]}, Reason.ALGORITHM),
        ({"typ": requests.TYPE, "kid": MASTER.id}, Reason.ALGORITHM),
        ({**HEADER, "typ": "JWT"}, Reason.TYPE),
        ({**HEADER, "typ": "mtk-child+jwt"}, Reason.TYPE),
        ({"alg": "EdDSA", "kid": MASTER.id}, Reason.TYPE),
        ({**HEADER, "kid": CHILD.key_id}, Reason.SIGNER),
        ({**HEADER, "kid": NODE.kid}, Reason.SIGNER),
        ({**HEADER, "kid": MASTER.text}, Reason.SIGNER),
        ({**HEADER, "kid": "../" + MASTER.id}, Reason.SIGNER),
        ({**HEADER, "kid": None}, Reason.MALFORMED),
        ({**HEADER, "kid": [MASTER.id]}, Reason.MALFORMED),
        ({"alg": "EdDSA", "typ": requests.TYPE}, Reason.MALFORMED),
        ({**HEADER, "crit": ["b64"], "b64": False}, Reason.MALFORMED),
        ({**HEADER, "jwk": {"kty": "OKP"}}, Reason.MALFORMED),
        ('{"alg":"none","alg":"EdDSA","typ":"mtk-request+jwt","kid":"x"}', Reason.MALFORMED),
        ("[]", Reason.MALFORMED),
        ("{", Reason.MALFORMED),
        ("[" * 150, Reason.MALFORMED),
        (b"\xff\xfe{\x00}\x00", Reason.MALFORMED),
    ],
)
def test_a_wrong_header_is_refused_before_any_signature(header: object, reason: Reason) -> None:
    """`read_kid`, which knows no key, refuses a header that is not exactly right; so does the whole check."""
    text = made(header)
    with pytest.raises(BadKey) as caught:
        read_kid(text)
    assert caught.value.reason is reason
    error = refusal(text)
    assert error.reason is reason
    assert error.key_id == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": OPERATOR.id}, Reason.ISSUER),
        ({"iss": None}, Reason.ISSUER),
        ({"aud": "other.example.com"}, Reason.AUDIENCE),
        ({"aud": RELAY.upper()}, Reason.AUDIENCE),
        ({"aud": [RELAY]}, Reason.AUDIENCE),
        ({"aud": None}, Reason.AUDIENCE),
        ({"aud": ""}, Reason.AUDIENCE),
        ({"jti": ""}, Reason.MALFORMED),
        ({"jti": 5}, Reason.MALFORMED),
        ({"jti": "x" * 65}, Reason.MALFORMED),
        ({"iat": None}, Reason.MALFORMED),
        ({"iat": True}, Reason.MALFORMED),
        ({"iat": "1800000000"}, Reason.MALFORMED),
        ({"exp": -1}, Reason.MALFORMED),
        ({"exp": 10**400}, Reason.MALFORMED),
        ({"iat": 1e12, "exp": 1e12 + 1}, Reason.MALFORMED),
        ({"exp": NOW + 3600.5}, Reason.LIFE),
        ({"exp": NOW}, Reason.LIFE),
        ({"exp": NOW - 1}, Reason.LIFE),
        ({"iat": NOW + LEEWAY + 1}, Reason.NOT_YET),
        ({"nbf": NOW + LEEWAY + 1}, Reason.NOT_YET),
        ({"nbf": "soon"}, Reason.MALFORMED),
        ({"iat": NOW - 100, "exp": NOW - LEEWAY}, Reason.EXPIRED),
    ],
)
def test_a_wrong_claim_is_refused_and_the_key_is_named(changes: dict[str, Any], reason: Reason) -> None:
    """A signed token with one wrong claim gives its reason, and the id of the key that was proven."""
    claims = {**CLAIMS, "exp": max(changes.get("iat") or 0, NOW) + 60} if type(changes.get("iat")) is float else CLAIMS
    error = refusal(made(payload={**claims, **changes}))
    assert error.reason is reason
    assert error.key_id == MASTER.id
    assert OPERATOR.id not in str(error)


@pytest.mark.parametrize(
    "changes",
    [
        {"iat": NOW + LEEWAY, "exp": NOW + LEEWAY + 1},
        {"iat": NOW - 3000, "exp": NOW - LEEWAY + 0.5},
        {"exp": NOW + 3600},
        {"nbf": NOW + LEEWAY},
        {"aud": "127.0.0.1"},
        {"note": "more than needed"},
    ],
)
def test_what_is_just_right(changes: dict[str, Any]) -> None:
    """The edges of each rule are within it."""
    assert verify_request(made(payload={**CLAIMS, **changes}), MASTER.public, AUDIENCES, NOW) == MASTER.id


def test_a_token_signed_by_another_key() -> None:
    """The signature counts, not the name in the header; a public key that is none accepts nothing."""
    for text, public in ((made(secret=OPERATOR.secret), MASTER.public), (made(), OPERATOR.public), (made(), b"short")):
        error = refusal(text, public)
        assert error.reason is Reason.SIGNATURE
        assert error.key_id == ""


def test_a_token_with_another_payload() -> None:
    """The payload of one token under the signature of another is refused."""
    one, other = made().split("."), made(payload={**CLAIMS, "aud": "127.0.0.1"}).split(".")
    assert refusal(f"{one[0]}.{other[1]}.{one[2]}").reason is Reason.SIGNATURE


def test_a_signature_has_one_spelling() -> None:
    """The last character of a signature carries two bits: the fifteen others that mean the same are refused."""
    text = made()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for other in alphabet.replace(text[-1], ""):
        refusal(text[:-1] + other)


@pytest.mark.parametrize(
    "payload",
    [
        '{"iss": "a", "iss": "b"}',
        '{"iat": NaN}',
        '{"iat": 1e999}',
        '{"iat": ' + "9" * 1000 + "}",
        "[" * 1000,
        '{"a":' * 150 + "1" + "}" * 150,
        '{"iss": "\\ud800"}',
        '{"iss": "\ud800"}',
        b"\xff\xff\xff",
        "null",
        '"text"',
    ],
)
def test_json_that_is_a_trap(payload: Any) -> None:
    """Duplicates, NaN, infinities, huge numbers, deep nesting and surrogates, all rightly signed, give `BadKey`."""
    error = refusal(made(payload=payload))
    assert error.key_id == MASTER.id


def test_too_long_is_refused_whole() -> None:
    """One character more than allowed, rightly signed, is too much; so is a megabyte."""
    for length in (MAX_LENGTH, 1_000_000):
        with pytest.raises(BadKey, match="longer than"):
            read_kid(made(payload={**CLAIMS, "note": "x" * length}))


@given(st.text() | st.lists(st.text("ABCxyz-_=+/0", max_size=90), max_size=4).map(".".join))
def test_any_text_gives_bad_key(text: str) -> None:
    """No text, with surrogates or without, gives another exception, and none is repeated in the sentence."""
    assert str(refusal(text)).isascii()


@given(st.dictionaries(st.sampled_from([*CLAIMS, "nbf", "other"]), any_json))
def test_any_claims_are_read_or_refused(changes: dict[str, Any]) -> None:
    """Whatever the claims are, a signed token is accepted or gives `BadKey`."""
    try:
        assert verify_request(made(payload={**CLAIMS, **changes}), MASTER.public, AUDIENCES, NOW) == MASTER.id
    except BadKey as error:
        assert error.key_id == MASTER.id
