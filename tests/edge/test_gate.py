"""Visitor keys at the gate: whose they are, until when, and that each signature is computed once."""

from __future__ import annotations

import dataclasses

import argon2
import pytest

from relay.edge import gate as room
from relay.edge.access import No, Password, Standing
from relay.edge.answers import Code
from relay.edge.gate import VisitorGate
from relay.keys.forms import Kind, with_checksum
from relay.keys.tokens import SigningKey, new_id
from tests.edge.keyring import DOMAIN, Keyring


def test_a_visitor_key_lets_into_its_tunnel_only() -> None:
    """Good for its name in its project, elsewhere for any other name, and for its name in the hands of others."""
    keys = Keyring()
    grant = keys.grant()
    text = keys.sign(grant)
    verdict = keys.gate.visitor_key(text, "demo", "default")
    assert (verdict.standing, verdict.key_id) == (Standing.GOOD, grant.key_id)
    for name, project in (("other", "default"), ("demo", "another")):
        verdict = keys.gate.visitor_key(text, name, project)
        assert (verdict.standing, verdict.key_id) == (Standing.ELSEWHERE, grant.key_id)


def test_a_key_is_proven_once_but_its_end_is_looked_at_each_time() -> None:
    """Expiry and revocation count from their moment on, however often the key was good before."""
    keys = Keyring()
    first, second = keys.grant(life=100), keys.grant(life=100)
    texts = [keys.sign(first), keys.sign(second)]
    for _ in range(5):
        assert [keys.gate.visitor_key(text, "demo", "default").standing for text in texts] == [Standing.GOOD] * 2
    assert keys.proven == 2
    keys.revoked.add(first.key_id)
    verdict = keys.gate.visitor_key(texts[0], "demo", "default")
    assert (verdict.standing, verdict.key_id, verdict.detail) == (
        Standing.BAD, first.key_id, "the visitor key was revoked",
    )  # fmt: skip
    assert keys.gate.visitor_key(texts[1], "demo", "default").standing is Standing.GOOD
    keys.clock.advance(100)
    verdict = keys.gate.visitor_key(texts[1], "demo", "default")
    assert (verdict.standing, verdict.detail) == (Standing.BAD, "the visitor key has expired")
    assert keys.proven == 2


def test_a_refusal_says_whose_key_it_is_where_that_was_proven() -> None:
    """And why, in one word for whoever keeps the books; of an unknown key nothing is said to be known."""
    keys = Keyring()
    other = keys.grant(tunnel="other")
    verdict = keys.gate.visitor_key(keys.sign(other), "demo", "default")
    assert (verdict.code, verdict.key_id, verdict.lineage) == ("elsewhere", other.key_id, other.lineage)
    old = dataclasses.replace(keys.grant(), issued_at=1.0, expires_at=2.0)
    verdict = keys.gate.visitor_key(keys.sign(old), "demo", "default")
    assert (verdict.code, verdict.key_id) == ("expired", old.key_id)
    verdict = keys.gate.visitor_key("mtk_visitor_x", "demo", "default")
    assert (verdict.code, verdict.key_id, verdict.lineage) == ("malformed", "", ())


def test_a_revoked_key_for_another_tunnel_is_revoked() -> None:
    """What a key was good for once is not told when it is good for nothing any more."""
    keys = Keyring()
    grant = keys.grant(tunnel="other")
    keys.revoked.add(grant.key_id)
    assert keys.gate.visitor_key(keys.sign(grant), "demo", "default").standing is Standing.BAD


def test_other_texts_are_no_keys() -> None:
    """Nonsense, a mistyped key, one of another relay, a child key, one that is over, one that is to come."""
    keys = Keyring()
    text = keys.sign(keys.grant())
    child = dataclasses.replace(keys.grant(), kind=Kind.CHILD, key_id=new_id(Kind.CHILD), tunnel="")
    late, old = keys.grant(), keys.grant(life=10)
    late = dataclasses.replace(late, issued_at=late.issued_at + 600, expires_at=late.expires_at + 600)
    old = dataclasses.replace(old, issued_at=old.issued_at - 600, expires_at=old.expires_at - 600)
    said = {
        "": "no visitor key of this relay",
        "mtk_visitor_": "no visitor key",
        "x" * 30_000: "no visitor key",
        "mtk_visitor_é.ÿ.\x00": "no visitor key",
        text[:-1] + ("A" if text[-1] != "A" else "B"): "mistyped",
        with_checksum(text[:-10] + "AAAA"): "no visitor key",
        SigningKey.generate().sign(keys.grant(), DOMAIN): "no visitor key",
        keys.signing.sign(keys.grant(), "elsewhere.example.com"): "no visitor key",
        keys.sign(child): "no visitor key",
        keys.sign(late): "not valid yet",
        keys.sign(old): "has expired",
    }
    for shown, words in said.items():
        verdict = keys.gate.visitor_key(shown, "demo", "default")
        assert verdict.standing is Standing.BAD
        assert words in verdict.detail
        assert not shown or shown not in verdict.detail


def test_a_key_of_a_node_that_no_longer_counts_is_forgotten() -> None:
    """Its signer was taken off the list, by another list or in place: what was proven before counts no more."""
    for replace in (True, False):
        keys = Keyring()
        text = keys.sign(keys.grant())
        assert keys.gate.visitor_key(text, "demo", "default").standing is Standing.GOOD
        if replace:
            keys.verifier.signers = {}
        else:
            assert isinstance(keys.verifier.signers, dict)
            keys.verifier.signers.clear()
        assert keys.gate.visitor_key(text, "demo", "default").standing is Standing.BAD


def test_a_key_of_a_retired_signer_is_told_so() -> None:
    """What was proven before is forgotten, and nobody is named: the key may be forged."""
    keys = Keyring()
    grant = keys.grant()
    text = keys.sign(grant)
    assert keys.gate.visitor_key(text, "demo", "default").signer == keys.signing.kid
    keys.verifier.learn({}, {keys.signing.kid})
    verdict = keys.gate.visitor_key(text, "demo", "default")
    assert (verdict.standing, verdict.code, verdict.key_id) == (Standing.BAD, "retired", "")
    assert verdict.detail == "the visitor key was signed by a signing key that is retired"


def test_what_is_proven_is_bounded_and_bad_keys_take_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key that was shown longest ago is forgotten first, and then simply proven again."""
    monkeypatch.setattr(room, "MOST_PROVEN", 3)
    keys = Keyring()
    texts = [keys.sign(keys.grant()) for _ in range(4)]
    for text in (*texts[:3], texts[0], "mtk_visitor_bad", texts[3]):
        keys.gate.visitor_key(text, "demo", "default")
    proven = keys.proven
    for text in (texts[0], texts[2], texts[3]):
        assert keys.gate.visitor_key(text, "demo", "default").standing is Standing.GOOD
    assert keys.proven == proven
    assert keys.gate.visitor_key(texts[1], "demo", "default").standing is Standing.GOOD
    assert keys.proven == proven + 1


def test_without_a_verifier_no_key_is_good() -> None:
    """A gate that was told of no signers opens to nobody."""
    keys = Keyring()
    assert VisitorGate().visitor_key(keys.sign(keys.grant()), "demo", "default").standing is Standing.BAD


async def test_passwords_are_checked_by_argon2() -> None:
    """Right and wrong, and both are known from then on."""
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    known = hasher.hash("swordfish")
    gate = VisitorGate()
    for text, right in (("swordfish", True), ("guess", False)):
        shown = Password(text, known, True, No(Code.UNAUTHORIZED, ""))
        assert gate.remembered(shown) is None
        assert await gate.password(shown, "192.0.2.1") is right
        assert gate.remembered(shown) is right
        assert text not in repr(shown)
