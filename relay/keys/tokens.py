"""Child and visitor keys: tokens that a relay signs. A bad one is refused without a query, and cheap checks come first.

`mtk_<kind>_<compact JWS><checksum>`. This room alone decides what stands in such a key and when it counts; whether it
was revoked since, the registry knows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from relay.keys import compact, forms, signatures
from relay.keys.errors import BadKey, Reason
from relay.keys.forms import Kind
from relay.keys.forms import new_id as new_id
from relay.keys.scopes import LABEL, Scope

TYPES: Mapping[Kind, str] = {Kind.CHILD: "mtk-child+jwt", Kind.VISITOR: "mtk-visitor+jwt"}
LEEWAY = 5.0
"""Seconds by which the clocks of two nodes may differ when a key is quite new; none when it expires."""

_MAX_LINEAGE = 8
_PROJECT = re.compile(r"[0-9A-Za-z_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a child or visitor key says. Times in seconds since the epoch."""

    kind: Kind
    key_id: str
    project: str
    lineage: tuple[str, ...]
    """The ids of the keys that it descends from, the topmost first, without itself."""
    scope: Scope
    issued_at: float
    expires_at: float
    tunnel: str = ""
    """The subdomain that a visitor key opens; empty in a child key."""
    signer: str = field(default="", compare=False)
    """The id of the key that signed it; empty before that."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The key with which a node signs; made by `generate` or `from_secret`."""

    secret: bytes = field(repr=False)
    public: bytes
    kid: str

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key."""
        return cls.from_secret(signatures.new_secret())

    @classmethod
    def from_secret(cls, secret: bytes) -> SigningKey:
        """The key with these 32 secret bytes. Raises ValueError where there are not 32."""
        public = signatures.public_of(secret)
        return cls(secret, public, f"node_{forms.id_of_bytes(hashlib.sha256(public).digest())}")

    def sign(self, grant: Grant, issuer: str) -> str:
        """The text of a key for the relay of the domain `issuer`. Raises ValueError for a grant that cannot be one."""
        if grant.kind not in TYPES:
            raise ValueError(f"a relay signs no {grant.kind} keys")
        claims = _claims(grant, issuer)
        try:
            readable = _read_grant(grant.kind, claims) == grant
        except BadKey as error:
            raise ValueError(str(error)) from None
        if not readable:
            raise ValueError("the grant holds something that is read back as another")
        token = signatures.encode(self.secret, TYPES[grant.kind], self.kid, claims)
        return forms.with_checksum(grant.kind.prefix + token)

    def sign_bytes(self, data: bytes) -> bytes:
        """The signature over anything that cannot be mistaken for a token, 64 bytes."""
        return signatures.sign(self.secret, data)


class TokenVerifier:
    """Tells the keys that the relay of one domain signed from all others.

    `signers` (kid → public key, 32 bytes) may be assigned or changed at any time; it counts from the next key on.
    """

    def __init__(self, issuer: str, signers: Mapping[str, bytes]) -> None:
        self.signers = signers
        self.retired: frozenset[str] = frozenset()
        """Ids of signers that count no longer."""
        self._issuer = issuer

    def learn(self, signers: Mapping[str, bytes], retired: Collection[str]) -> None:
        """More signers, and such as count no longer: these never count again, whatever is learned later."""
        self.retired = self.retired.union(retired)
        known = {**self.signers, **signers}
        self.signers = {kid: public for kid, public in known.items() if kid not in self.retired}

    def verify(self, text: str, kind: Kind, now: float) -> Grant:
        """What a key of this kind says, when it is genuine and counts `now`. Raises BadKey, for every other text."""
        found = forms.check_text(text)
        if found is not kind:
            raise BadKey(Reason.TYPE, f"This is a {found} key; a {kind} key is needed here.")
        token = compact.read_token(text[len(kind.prefix) : -forms.CHECKSUM_LENGTH], TYPES[kind])
        public = self.signers.get(token.kid)
        if token.kid in self.retired:
            raise BadKey(Reason.RETIRED, f"This {kind} key was signed by a signing key that is retired.")
        if public is None:
            raise BadKey(Reason.SIGNER, f"This {kind} key was signed by another relay, or by a node that is gone.")
        if not signatures.verify(public, token.signed, token.signature):
            raise BadKey(Reason.SIGNATURE, f"This {kind} key is forged: its signature is wrong.")
        claims = compact.read_object(token.payload)
        grant = _read_grant(kind, claims, token.kid)
        self._check_relay(grant, claims)
        _check_times(grant, claims, now)
        return grant

    def _check_relay(self, grant: Grant, claims: dict[str, Any]) -> None:
        if claims.get("iss") != self._issuer:
            raise BadKey(Reason.ISSUER, f"This {grant.kind} key was issued by another relay.", grant.key_id)
        if claims.get("aud") != self._issuer:
            raise BadKey(Reason.AUDIENCE, f"This {grant.kind} key is for another relay.", grant.key_id)


def _check_times(grant: Grant, claims: dict[str, Any], now: float) -> None:
    if grant.expires_at <= grant.issued_at:
        raise BadKey(Reason.LIFE, f"This {grant.kind} key ends before it begins.", grant.key_id)
    if max(grant.issued_at, compact.read_time(claims, "nbf")) > now + LEEWAY:
        raise BadKey(
            Reason.NOT_YET, f"This {grant.kind} key is not valid yet: the clocks of two machines differ.", grant.key_id
        )
    if now >= grant.expires_at:
        raise BadKey(Reason.EXPIRED, f"This {grant.kind} key has expired; mint a new one.", grant.key_id)


def _claims(grant: Grant, issuer: str) -> dict[str, Any]:
    claims = {
        "iss": issuer,
        "aud": issuer,
        "iat": grant.issued_at,
        "nbf": grant.issued_at,
        "exp": grant.expires_at,
        "jti": grant.key_id,
        "prj": grant.project,
        "lin": list(grant.lineage),
        "scp": grant.scope.to_short_json(),
    }
    if grant.kind is Kind.VISITOR:
        claims["tun"] = grant.tunnel
    return claims


def _read_grant(kind: Kind, claims: dict[str, Any], signer: str = "") -> Grant:
    key_id, project, tunnel = claims.get("jti"), claims.get("prj"), claims.get("tun", "")
    if not isinstance(key_id, str) or not forms.is_public_id(key_id) or forms.kind_of(key_id) is not kind:
        raise BadKey(Reason.MALFORMED, f"This {kind} key has no id of its kind (jti).")
    if not isinstance(project, str) or not _PROJECT.fullmatch(project):
        raise BadKey(Reason.MALFORMED, f"This {kind} key names no project (prj).", key_id)
    if not isinstance(tunnel, str) or (LABEL.fullmatch(tunnel) is not None) is not (kind is Kind.VISITOR):
        raise BadKey(Reason.MALFORMED, f"This {kind} key names no tunnel, or one that it must not name (tun).", key_id)
    try:
        scope = Scope.from_json(claims.get("scp"))
    except ValueError:
        raise BadKey(Reason.MALFORMED, f"This {kind} key has no scope that makes sense (scp).", key_id) from None
    lineage = _read_lineage(claims.get("lin"))
    if lineage is None:
        raise BadKey(Reason.MALFORMED, f"This {kind} key has no lineage that makes sense (lin).", key_id)
    issued_at, expires_at = compact.read_time(claims, "iat"), compact.read_time(claims, "exp")
    return Grant(kind, key_id, project, lineage, scope, issued_at, expires_at, tunnel, signer)


def _read_lineage(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list) or len(value) > _MAX_LINEAGE:
        return None
    return tuple(value) if all(isinstance(each, str) and forms.is_public_id(each) for each in value) else None
