"""Operator and master keys: text and back, ids that follow from the public key, no secret in what is printed."""

from __future__ import annotations

import dataclasses
import traceback

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given

from relay.keys import forms
from relay.keys.errors import BadKey, Reason
from relay.keys.forms import Kind
from relay.keys.private import PrivateKey, id_of_public
from tests.keys.makers import CHILD_TEXT, MASTER, OPERATOR, VISITOR_TEXT, private_kinds, secrets


@given(private_kinds, secrets)
def test_a_key_is_read_from_its_text(kind: Kind, secret: bytes) -> None:
    """Every secret gives a text of one length, and the same key again."""
    key = PrivateKey(kind, secret)
    assert PrivateKey.parse(key.text) == key
    assert len(key.text) == len(kind.prefix) + 12 + 1 + 43 + 6
    assert key.text.startswith(f"{key.id}_")


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_the_smallest_and_the_largest_secret(secret: bytes) -> None:
    """All zeros keep their leading digits, all ones fit into 43."""
    assert PrivateKey.parse(PrivateKey(Kind.MASTER, secret).text).secret == secret


def test_the_public_half_is_that_of_ed25519() -> None:
    """The 32 secret bytes are the seed of RFC 8032, and the id follows from the public half and the kind alone."""
    public = Ed25519PrivateKey.from_private_bytes(MASTER.secret).public_key().public_bytes_raw()
    assert MASTER.public == public
    assert MASTER.id == id_of_public(Kind.MASTER, public)
    assert id_of_public(Kind.OPERATOR, public).removeprefix("mtk_operator_") == MASTER.id.removeprefix("mtk_master_")


def test_generated_keys_differ() -> None:
    """Two new keys have nothing in common but their kind."""
    one, other = PrivateKey.generate(Kind.MASTER), PrivateKey.generate(Kind.MASTER)
    assert one.secret != other.secret
    assert one.id != other.id
    assert one.kind is other.kind is Kind.MASTER


@pytest.mark.parametrize("text", [CHILD_TEXT, VISITOR_TEXT])
def test_keys_signed_by_a_relay_are_no_private_keys(text: str) -> None:
    """A child or visitor key where a master key is needed is refused by its type."""
    with pytest.raises(BadKey) as caught:
        PrivateKey.parse(text)
    assert caught.value.reason is Reason.TYPE


def test_an_id_and_a_secret_that_do_not_belong_together() -> None:
    """The id of one key before the secret of another is refused, although the checksum is right."""
    body = MASTER.text[: -forms.CHECKSUM_LENGTH]
    mixed = forms.with_checksum(f"{PrivateKey(Kind.MASTER, OPERATOR.secret).id}_{body[-43:]}")
    with pytest.raises(BadKey, match="put together") as caught:
        PrivateKey.parse(mixed)
    assert caught.value.reason is Reason.MALFORMED


def test_a_secret_beyond_32_bytes() -> None:
    """43 digits can say more than 32 bytes hold: refused, not shortened."""
    with pytest.raises(BadKey) as caught:
        PrivateKey.parse(forms.with_checksum(f"{MASTER.id}_{'z' * 43}"))
    assert caught.value.reason is Reason.MALFORMED


def test_only_operators_and_masters_hold_private_keys() -> None:
    """A private key of another kind or length cannot be made, and the error does not show it."""
    for kind, secret in ((Kind.CHILD, b"s" * 32), (Kind.MASTER, b"s" * 31)):
        with pytest.raises(ValueError, match="secret bytes") as caught:
            PrivateKey(kind, secret)
        assert "sss" not in str(caught.value)


def test_no_secret_in_what_is_printed() -> None:
    """Neither repr, nor str, nor a traceback of an error over a key shows the secret in any spelling."""
    said = [repr(MASTER), str(MASTER), f"{dataclasses.fields(MASTER)}"]
    try:
        PrivateKey.parse(MASTER.text[:-1] + "!")
    except BadKey as error:
        said += [*traceback.format_exception(error), repr(error)]
    digits = MASTER.text[len(MASTER.id) + 1 :]
    for spelling in (digits[:20], MASTER.secret.hex()[:20], repr(MASTER.secret)[2:20]):
        assert not [line for line in said if spelling in line]
