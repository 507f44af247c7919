"""Keys and request tokens that a relay must not accept, made by hand after docs/keys.md: forged in each way there is.

Some are rightly signed and wrong all the same (expired, for another relay): those take the true signing key, which
lies in the data directory of a relay under test.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
import zlib
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.support.keys import DIGITS, make_private, request_token, text_of

Json = dict[str, Any]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def signing_secret(data: Path) -> bytes:
    """What the relay of this data directory signs with."""
    return bytes.fromhex((data / "signing.key").read_text().strip())


def parts_of(token: str) -> tuple[Json, Json]:
    """Header and claims of a token, or of a key of the kinds that are one."""
    header, claims, _ = token.removeprefix("mtk_child_").removeprefix("mtk_visitor_").split(".")
    return json.loads(unb64(header)), json.loads(unb64(claims))


def id_of(key: str) -> str:
    """The public id of a child or visitor key."""
    return str(parts_of(key)[1]["jti"])


def token(header: Json | str, claims: Json, secret: bytes) -> str:
    """A compact JWS, signed with an Ed25519 secret whatever its header says; a header of `str` is JSON already."""
    head = header if isinstance(header, str) else json.dumps(header)
    signed = f"{b64(head.encode())}.{b64(json.dumps(claims).encode())}"
    return f"{signed}.{b64(Ed25519PrivateKey.from_private_bytes(secret).sign(signed.encode()))}"


def checked(body: str) -> str:
    """A key text: `body` and its checksum."""
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = DIGITS[digit] + digits
    return body + digits


def child(header: Json | str, claims: Json, secret: bytes) -> str:
    """A child key with a right checksum."""
    return checked("mtk_child_" + token(header, claims, secret))


def another_id(kind: str = "child") -> str:
    """A public id that no relay knows."""
    return f"mtk_{kind}_" + "".join(secrets.choice(DIGITS) for _ in range(12))


def forged_keys(good: str, secret: bytes) -> dict[str, str]:
    """Child keys like `good`, which `secret` signed, each wrong in its own way. No registry has to be asked for any."""
    header, claims = parts_of(good)
    now, day, stolen = int(time.time()), 86_400, secrets.token_bytes(32)
    public = Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    hs256 = token({**header, "alg": "HS256"}, claims, secret).rpartition(".")[0]
    wide = {**claims, "scp": {"names": ["*"], "tunnels": None, "rate": None, "bandwidth": None}}
    typed = good[:-1] + ("0" if good[-1] != "0" else "1")
    return {
        "mistyped": typed,
        "garbage": "x" * 60,
        "a public id": claims["jti"],
        "too long": child(header, {**claims, "lin": ["mtk_master_" + "a" * 12] * 120}, stolen),
        "signature": child(header, wide, stolen),
        "signature of the same length": good[:-40] + checked(good[:-40] + "A" * 33 + "A")[-40:],
        "signature of zeros": checked(good[: good.rfind(".") + 1] + "A" * 86),
        "none": child({**header, "alg": "none"}, wide, stolen),
        "none, unsigned": checked("mtk_child_" + hs256.replace(hs256.split(".")[0], b64(b'{"alg":"none"}')) + "."),
        "HS256 by the public key": checked(
            f"mtk_child_{hs256}." + b64(hmac.new(public, hs256.encode(), hashlib.sha256).digest() * 2)
        ),
        "ES256": child({**header, "alg": "ES256"}, claims, stolen),
        "type": child({**header, "typ": "mtk-visitor+jwt"}, claims, stolen),
        "no type": child({"alg": "EdDSA", "kid": header["kid"]}, claims, stolen),
        "a key in the header": child(
            {**header, "jwk": {"kty": "OKP", "crv": "Ed25519", "x": b64(public)}}, wide, stolen
        ),
        "alg twice": child(json.dumps(header)[:-1] + ', "alg": "none"}', claims, stolen),
        "another relay": child({**header, "kid": "node_" + "a" * 12}, claims, stolen),
        "no kid": child({**header, "kid": ""}, claims, stolen),
        "kid that is a path": child({**header, "kid": "../signing.key"}, claims, stolen),
        "issuer": child(header, {**claims, "iss": "other.example"}, secret),
        "audience": child(header, {**claims, "aud": "other.example"}, secret),
        "not yet": child(header, {**claims, "iat": now + day, "nbf": now + day, "exp": now + 2 * day}, secret),
        "expired": child(header, {**claims, "iat": now - day, "nbf": now - day, "exp": now - 1}, secret),
        "a time that is text": child(header, {**claims, "exp": "9999999999"}, secret),
        "no scope": child(header, {name: claims[name] for name in claims if name != "scp"}, secret),
        "an id of another kind": child(header, {**claims, "jti": another_id("master")}, secret),
    }


def forged_requests(key: str) -> dict[str, str]:
    """Request tokens for the API like those that the operator or master key `key` signs, each wrong in its own way."""
    good = request_token(key)
    header, claims = parts_of(good)
    now, day, stolen = int(time.time()), 86_400, secrets.token_bytes(32)
    stranger_id = f"{key.rpartition('_')[0].rpartition('_')[0]}_{'a' * 12}"
    stranger = text_of(stranger_id, make_private()[0])
    return {
        "garbage": "x" * 60,
        "a public id": header["kid"],
        "too long": token(header, {**claims, "jti": "a" * 2048}, stolen),
        "signature": token(header, claims, stolen),
        "signature of zeros": good[: good.rfind(".") + 1] + "A" * 86,
        "none": token({**header, "alg": "none"}, claims, stolen),
        "none, unsigned": ".".join((b64(b'{"alg":"none"}'), good.split(".")[1], "")),
        "HS256": token({**header, "alg": "HS256"}, claims, stolen),
        "type": token({**header, "typ": "mtk-child+jwt"}, claims, stolen),
        "a key in the header": token({**header, "jwk": {"kty": "OKP", "crv": "Ed25519", "x": "a"}}, claims, stolen),
        "an unknown key": request_token(stranger),
        "another's id": token({**header, "kid": stranger_id}, claims, stolen),
        "an operator's id, as it is": key.rpartition("_")[0],
        "issuer": request_token_with(key, iss=stranger_id),
        "audience": request_token(key, "other.example"),
        "not yet": request_token_with(key, iat=now + day, exp=now + day + 60),
        "expired": request_token_with(key, iat=now - day, exp=now - day + 60),
        "a life of a day": request_token_with(key, iat=now, exp=now + day),
        "a forged child key": child(
            {"alg": "EdDSA", "kid": "node_" + "a" * 12, "typ": "mtk-child+jwt"}, claims, stolen
        ),
    }


def request_token_with(key: str, **changed: object) -> str:
    """A token that the key did sign, with claims that do not count."""
    header, claims = parts_of(request_token(key))
    number = 0
    for digit in key.split("_")[3][:43]:
        number = number * 62 + DIGITS.index(digit)
    return token(header, {**claims, **changed}, number.to_bytes(32, "big"))
