"""What a wrong key costs the relay: less than a quarter of a millisecond of CPU, whatever is wrong with it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from relay.keys.errors import BadKey, Reason
from relay.keys.forms import Kind
from relay.keys.requests import verify_request
from tests.keys.makers import (
    CHILD_TEXT,
    CLAIMS,
    HEADER,
    MASTER,
    NOW,
    OPERATOR,
    OTHER_NODE,
    RELAY,
    VERIFIER,
    child_text,
)

MOST = 250e-6
"""Seconds of CPU, where a signature alone is checked in less than half of it."""

LONG = {**CLAIMS, "scp": {"names": [f"{'a' * 61}{each:02}" for each in range(16)]}}
WRONG = {
    "mistyped": (CHILD_TEXT[:-1] + ("0" if CHILD_TEXT[-1] != "0" else "1"), NOW, Reason.MISTYPED),
    "unknown kid": (child_text({**HEADER, "kid": OTHER_NODE.kid}), NOW, Reason.SIGNER),
    "wrong signature": (child_text(secret=OTHER_NODE.secret), NOW, Reason.SIGNATURE),
    "wrong signature, long": (child_text(payload=LONG, secret=OTHER_NODE.secret), NOW, Reason.SIGNATURE),
    "wrong algorithm": (child_text({**HEADER, "alg": "HS256"}), NOW, Reason.ALGORITHM),
    "expired": (CHILD_TEXT, NOW + 10**6, Reason.EXPIRED),
    "a megabyte": (CHILD_TEXT * 1700, NOW, Reason.MALFORMED),
}


def cost(call: Callable[[], object]) -> float:
    """Mean seconds of CPU for one call."""
    began = time.process_time()
    for _ in range(100):
        call()
    return (time.process_time() - began) / 100


def refused(call: Callable[[], object], reason: Reason) -> Callable[[], None]:
    """The call, which has to be refused for that reason."""

    def refuse() -> None:
        try:
            call()
        except BadKey as error:
            assert error.reason is reason
        else:
            raise AssertionError("accepted")

    return refuse


def excess(call: Callable[[], object]) -> float:
    """By how many times a call costs more than it may, on a machine as fast as it is now: the best of ten looks at it
    and at a signature, one right after the other.
    """
    key = Ed25519PrivateKey.generate()
    public, signature = key.public_key(), key.sign(b"x" * 300)

    def once() -> float:
        return cost(call) / max(MOST, 2 * cost(lambda: public.verify(signature, b"x" * 300)))

    return min(once() for _ in range(10))


@pytest.mark.alone
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_key_is_cheap(name: str) -> None:
    """Each way to be wrong stays within the bound, a rightly signed key that has expired too."""
    text, now, reason = WRONG[name]
    assert excess(refused(lambda: VERIFIER.verify(text, Kind.CHILD, now), reason)) < 1


@pytest.mark.alone
def test_a_wrong_request_is_cheap() -> None:
    """A request signed by another key than the one it names stays within the bound."""
    text = MASTER.sign_request(RELAY, NOW)
    wrong = refused(lambda: verify_request(text, OPERATOR.public, {RELAY}, NOW), Reason.SIGNATURE)
    assert excess(wrong) < 1
