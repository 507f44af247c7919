"""Request tokens: how an operator or master key proves itself to a relay without ever leaving its machine.

A request carries a JWT that the key signed for itself. This room alone decides what such a token must say: which key
(`kid`, `iss`), to which relay (`aud`: the host name or address as the command dials it, in lower case, without scheme,
port and brackets), and for how long (`iat`, `exp`, at most an hour). Whose the key is, the registry knows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from typing import Any

from relay.keys import compact, forms, signatures
from relay.keys.compact import Token
from relay.keys.errors import BadKey, Reason

TYPE = "mtk-request+jwt"
MAX_LENGTH = 2048
LEEWAY = 30.0
"""Seconds by which the clocks of the two machines may differ."""
MAX_LIFE = 3600.0
"""Seconds between `iat` and `exp`."""
_MAX_NONCE = 64


def sign_request(secret: bytes, kid: str, audience: str, now: float, life: float) -> str:
    """A token of the key `kid`, good for `life` seconds (whole ones, rounded up). Raises ValueError: life."""
    if not 0 < life <= MAX_LIFE:
        raise ValueError(f"A token lives for more than 0 and at most {MAX_LIFE:.0f} seconds, not for {life:g}.")
    begin = math.floor(now)
    claims = {"iss": kid, "aud": audience, "iat": begin, "exp": begin + math.ceil(life)}
    return signatures.encode(secret, TYPE, kid, {**claims, "jti": forms.id_of_bytes(os.urandom(32))})


def read_kid(token: str) -> str:
    """Whose token this claims to be: the public id of an operator or master key. No signature is checked.

    Raises BadKey: malformed, algorithm, type, signer.
    """
    return _read(token).kid


def verify_request(token: str, public: bytes, audiences: Collection[str], now: float) -> str:
    """The public id of the key that signed this token, for one of `audiences`, and it counts `now`. Raises BadKey."""
    read = _read(token)
    if not signatures.verify(public, read.signed, read.signature):
        raise BadKey(Reason.SIGNATURE, "The request's token was not signed by the key that it names.")
    try:
        claims = compact.read_object(read.payload)
        _check_names(claims, read.kid, audiences)
        _check_times(claims, now)
    except BadKey as error:
        raise BadKey(error.reason, str(error), read.kid) from None
    return read.kid


def _read(token: str) -> Token:
    if len(token) > MAX_LENGTH:
        raise BadKey(Reason.MALFORMED, f"The request's token is longer than {MAX_LENGTH} characters.")
    read = compact.read_token(token, TYPE)
    kind = forms.kind_of(read.kid)
    if kind is None or not kind.private or not forms.is_public_id(read.kid):
        raise BadKey(Reason.SIGNER, "The request's token names no operator or master key in its header (kid).")
    return read


def _check_names(claims: dict[str, Any], kid: str, audiences: Collection[str]) -> None:
    if claims.get("iss") != kid:
        raise BadKey(Reason.ISSUER, "The request's token has another issuer (iss) than the key that signed it.")
    audience = claims.get("aud")
    if not isinstance(audience, str) or audience not in audiences:
        raise BadKey(
            Reason.AUDIENCE,
            "The request's token is for another relay (aud); sign it for the host name in this relay's address.",
        )
    nonce = claims.get("jti")
    if not isinstance(nonce, str) or not 0 < len(nonce) <= _MAX_NONCE:
        raise BadKey(Reason.MALFORMED, f"The request's token needs a jti of 1 to {_MAX_NONCE} characters.")


def _check_times(claims: dict[str, Any], now: float) -> None:
    begin, end = compact.read_time(claims, "iat"), compact.read_time(claims, "exp")
    if not begin < end <= begin + MAX_LIFE:
        raise BadKey(Reason.LIFE, f"The request's token must live for at most {MAX_LIFE:.0f} seconds (exp less iat).")
    valid_from = compact.read_time(claims, "nbf") if "nbf" in claims else begin
    if max(begin, valid_from) > now + LEEWAY:
        raise BadKey(Reason.NOT_YET, "The request's token is not valid yet; set the clock of the machine that signs.")
    if now >= end + LEEWAY:
        raise BadKey(
            Reason.EXPIRED,
            "The request's token has expired; sign a new one, and see that this machine's clock is right.",
        )
