"""Child and visitor keys: what was granted is what is read, and everything else is refused with its reason."""

from __future__ import annotations

import dataclasses
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from relay.keys import forms, tokens
from relay.keys.errors import BadKey, Reason
from relay.keys.forms import DIGITS, Kind
from relay.keys.scopes import LIMITS, Scope
from relay.keys.tokens import LEEWAY, Grant, SigningKey, TokenVerifier
from tests.keys.makers import (
    CHILD,
    CHILD_TEXT,
    CLAIMS,
    DOMAIN,
    HEADER,
    MASTER,
    NODE,
    NOW,
    OTHER_NODE,
    TEXTS,
    VERIFIER,
    VISITOR,
    VISITOR_TEXT,
    any_json,
    child_text,
    grants,
    secrets,
)


def refusal(text: str, kind: Kind = Kind.CHILD, now: float = NOW, verifier: TokenVerifier = VERIFIER) -> BadKey:
    with pytest.raises(BadKey) as caught:
        verifier.verify(text, kind, now)
    assert text not in str(caught.value)
    return caught.value


@given(grants())
def test_what_was_granted_is_read(grant: Grant) -> None:
    """Every grant comes back whole from its key, from its first moment to its last."""
    text = NODE.sign(grant, DOMAIN)
    assert len(text) <= forms.MAX_LENGTH
    assert VERIFIER.verify(text, grant.kind, grant.issued_at) == grant
    assert VERIFIER.verify(text, grant.kind, grant.issued_at - LEEWAY + 0.001) == grant
    assert refusal(text, grant.kind, grant.expires_at).reason is Reason.EXPIRED
    assert refusal(text, grant.kind, grant.issued_at - LEEWAY - 1).reason is Reason.NOT_YET


def test_the_longest_grant_fits() -> None:
    """Sixteen patterns of 63 characters, the longest domain, lineage and project still make a key."""
    long = dataclasses.replace(
        VISITOR,
        project="p" * 64,
        lineage=(MASTER.id,) * 8,
        scope=Scope(tuple(f"{'a' * 61}{each:02}" for each in range(16)), *[2**53] * len(LIMITS)),
        issued_at=1_800_000_000.123456,
        expires_at=1_800_086_400.123456,
        tunnel="t" * 63,
    )
    domain = ".".join(["d" * 63] * 4)[:253]
    text = NODE.sign(long, domain)
    assert TokenVerifier(domain, {NODE.kid: NODE.public}).verify(text, Kind.VISITOR, NOW + 1) == long


def test_others_can_read_them() -> None:
    """PyJWT, all its own checks on, reads a key without its prefix and checksum."""
    public = Ed25519PublicKey.from_public_bytes(NODE.public)
    options: Any = {
        "verify_exp": False,
        "verify_iat": False,
        "verify_nbf": False,
        "require": ["iss", "aud", "exp", "jti"],
    }
    token = CHILD_TEXT.removeprefix("mtk_child_")[:-6]
    claims = jwt.decode(token, public, algorithms=["EdDSA"], audience=DOMAIN, issuer=DOMAIN, options=options)
    assert claims == CLAIMS
    assert jwt.get_unverified_header(token) == HEADER


@given(secrets)
def test_a_signing_key_comes_back(secret: bytes) -> None:
    """The secret alone gives the same key, and its name is `node_` and twelve digits."""
    key = SigningKey.from_secret(secret)
    assert key == SigningKey.from_secret(key.secret)
    assert key.kid.startswith("node_")
    assert len(key.kid) == 17
    assert set(key.kid[5:]) <= set(DIGITS)


def test_a_signing_key_shows_no_secret() -> None:
    """Neither whole nor in part."""
    assert "secret" not in repr(NODE)
    assert repr(NODE.secret)[2:-1] not in repr(NODE)
    assert SigningKey.generate() != SigningKey.generate()
    with pytest.raises(ValueError, match="32 bytes"):
        SigningKey.from_secret(b"short")


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": Kind.MASTER},
        {"kind": Kind.VISITOR},
        {"key_id": MASTER.id},
        {"key_id": "mtk_child_short"},
        {"project": ""},
        {"project": "proj\n"},
        {"project": "p" * 65},
        {"lineage": ("root",)},
        {"lineage": (MASTER.id,) * 9},
        {"tunnel": "web"},
        {"issued_at": float("nan")},
        {"expires_at": float("inf")},
        {"expires_at": -1.0},
    ],
)
def test_a_grant_that_no_key_can_hold_is_not_signed(changes: dict[str, Any]) -> None:
    """What could not be read again is a mistake of the caller's."""
    with pytest.raises(ValueError, match=r"sign|grant|key|token"):
        NODE.sign(dataclasses.replace(CHILD, **changes), DOMAIN)


def test_kinds_are_not_taken_for_each_other() -> None:
    """A child key opens no private tunnel, a visitor key opens none at all, and private keys are neither."""
    for wanted in tokens.TYPES:
        for kind in set(Kind) - {wanted}:
            assert refusal(TEXTS[kind], wanted).reason is Reason.TYPE
    disguised = forms.with_checksum(Kind.CHILD.prefix + VISITOR_TEXT.removeprefix("mtk_visitor_")[:-6])
    assert refusal(disguised).reason is Reason.TYPE


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({**HEADER, "alg": "none"}, Reason.ALGORITHM),
        ({**HEADER, "alg": "HS256"}, Reason.ALGORITHM),
        ({**HEADER, "alg": "ES256"}, Reason.ALGORITHM),
        ({**HEADER, "typ": "JWT"}, Reason.TYPE),
        ({**HEADER, "typ": "mtk-visitor+jwt"}, Reason.TYPE),
        ({**HEADER, "typ": "mtk-request+jwt"}, Reason.TYPE),
        ({**HEADER, "kid": OTHER_NODE.kid}, Reason.SIGNER),
        ({**HEADER, "kid": ""}, Reason.SIGNER),
        ({**HEADER, "kid": ["x"]}, Reason.MALFORMED),
        ({**HEADER, "kid": {}}, Reason.MALFORMED),
        ({**HEADER, "jku": "https://example.com"}, Reason.MALFORMED),
        ({**HEADER, "crit": ["exp"]}, Reason.MALFORMED),
    ],
)
def test_a_wrong_header(header: object, reason: Reason) -> None:
    """Each is refused by its reason, rightly signed as it is, and no key is named."""
    error = refusal(child_text(header))
    assert error.reason is reason
    assert error.key_id == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "other.example.com"}, Reason.ISSUER),
        ({"aud": "other.example.com"}, Reason.AUDIENCE),
        ({"aud": [DOMAIN]}, Reason.AUDIENCE),
        ({"exp": NOW - 1, "iat": NOW - 2, "nbf": NOW - 2}, Reason.EXPIRED),
        ({"exp": NOW, "iat": NOW - 2, "nbf": NOW - 2}, Reason.EXPIRED),
        ({"nbf": NOW + LEEWAY + 1}, Reason.NOT_YET),
        ({"iat": NOW + LEEWAY + 1}, Reason.NOT_YET),
        ({"exp": CLAIMS["iat"]}, Reason.LIFE),
        ({"prj": None}, Reason.MALFORMED),
        ({"lin": "root"}, Reason.MALFORMED),
        ({"lin": [1]}, Reason.MALFORMED),
        ({"scp": None}, Reason.MALFORMED),
        ({"scp": {"names": ["a"], "more": 1}}, Reason.MALFORMED),
        ({"tun": "web"}, Reason.MALFORMED),
    ],
)
def test_a_wrong_claim_of_a_known_key(changes: dict[str, Any], reason: Reason) -> None:
    """Each is refused by its reason, and the key, which is genuine, is named for the audit."""
    error = refusal(child_text(payload={**CLAIMS, **changes}))
    assert error.reason is reason
    assert error.key_id == CHILD.key_id


@pytest.mark.parametrize("changes", [{"jti": MASTER.id}, {"jti": 5}, {"jti": VISITOR.key_id}, {"jti": None}])
def test_a_key_without_an_id_of_its_kind(changes: dict[str, Any]) -> None:
    """Nobody is named whose name is not one."""
    error = refusal(child_text(payload={**CLAIMS, **changes}))
    assert error.reason is Reason.MALFORMED
    assert error.key_id == ""


@pytest.mark.parametrize("member", sorted(CLAIMS))
def test_every_claim_is_needed(member: str) -> None:
    """Without any one of its claims a key is refused."""
    refusal(child_text(payload={name: value for name, value in CLAIMS.items() if name != member}))


def test_a_wrong_signature() -> None:
    """Another node's signature under this node's name is a forgery."""
    assert refusal(child_text(secret=OTHER_NODE.secret)).reason is Reason.SIGNATURE


def test_signers_may_change_at_any_time() -> None:
    """A node that joins is accepted from then on, one that is taken off no longer."""
    verifier = TokenVerifier(DOMAIN, {})
    text = OTHER_NODE.sign(CHILD, DOMAIN)
    assert refusal(text, verifier=verifier).reason is Reason.SIGNER
    verifier.signers = {OTHER_NODE.kid: OTHER_NODE.public}
    assert verifier.verify(text, Kind.CHILD, NOW) == CHILD
    verifier.signers = {NODE.kid: NODE.public}
    assert refusal(text, verifier=verifier).reason is Reason.SIGNER


def test_a_retired_signer_stays_retired() -> None:
    """Its keys are refused whatever is learned later and whoever signed them, and nobody's id is believed; the keys of
    others go on, and those of who comes anew count.
    """
    verifier = TokenVerifier(DOMAIN, {NODE.kid: NODE.public})
    others, ours = OTHER_NODE.sign(CHILD, DOMAIN), NODE.sign(CHILD, DOMAIN)
    verifier.learn({OTHER_NODE.kid: OTHER_NODE.public}, ())
    assert [verifier.verify(text, Kind.CHILD, NOW).signer for text in (ours, others)] == [NODE.kid, OTHER_NODE.kid]
    verifier.learn({}, {OTHER_NODE.kid, "node_never_seen_here"})
    for known in ({}, {OTHER_NODE.kid: OTHER_NODE.public}):
        verifier.learn(known, ())
        for text in (others, child_text({**HEADER, "kid": OTHER_NODE.kid})):
            error = refusal(text, verifier=verifier)
            assert (error.reason, error.key_id) == (Reason.RETIRED, "")
        assert verifier.verify(ours, Kind.CHILD, NOW) == CHILD


def test_another_relays_key() -> None:
    """The same node's key for another domain is refused here."""
    assert refusal(NODE.sign(CHILD, "other.example.com")).reason is Reason.ISSUER


@pytest.mark.parametrize(
    "payload",
    [
        '{"jti": "a", "jti": "b"}',
        '{"exp": NaN}',
        '{"exp": -Infinity}',
        '{"exp": ' + "9" * 2600 + "}",
        "[" * 2600,
        '{"a":' * 400 + "1" + "}" * 400,
        '{"jti": "\\ud800"}',
        '{"jti": "\ud800"}',
        b"\xff",
    ],
)
def test_json_that_is_a_trap(payload: Any) -> None:
    """Duplicates, NaN, huge numbers, deep nesting and surrogates, all rightly signed, give `BadKey`."""
    assert refusal(child_text(payload=payload)).reason is Reason.MALFORMED


@given(st.dictionaries(st.sampled_from([*CLAIMS, "tun", "other"]), any_json))
def test_any_claims_are_read_or_refused(changes: dict[str, Any]) -> None:
    """Whatever the claims are, a signed key is read or gives `BadKey`."""
    try:
        assert VERIFIER.verify(child_text(payload={**CLAIMS, **changes}), Kind.CHILD, NOW).kind is Kind.CHILD
    except BadKey as error:
        assert str(error).isascii()


@given(header=any_json | st.binary(max_size=60), payload=any_json | st.binary(max_size=60))
def test_any_token_under_a_right_checksum(header: Any, payload: Any) -> None:
    """Whatever stands in a token, all that comes of it is `BadKey`."""
    refusal(child_text(header, payload))


@given(st.text() | st.text().map(lambda text: f"mtk_child_{text}"), st.sampled_from(list(tokens.TYPES)))
def test_any_text_gives_bad_key(text: str, kind: Kind) -> None:
    """No text, with surrogates or without, gives another exception."""
    with pytest.raises(BadKey):
        VERIFIER.verify(text, kind, NOW)


@given(st.data())
def test_a_changed_key_is_never_accepted(data: st.DataObject) -> None:
    """Any character of a key replaced, and the checksum made right again: refused all the same."""
    body = CHILD_TEXT[:-6]
    at = data.draw(st.integers(0, len(body) - 1))
    other = data.draw(st.sampled_from(DIGITS + "-_.").filter(lambda each: each != body[at]))
    refusal(forms.with_checksum(body[:at] + other + body[at + 1 :]))
