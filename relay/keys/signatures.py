"""Ed25519 and signed tokens: the only room that knows PyJWT and cryptography; it decides nothing else.

Tokens are made by `jwt.encode`. They are read by `relay.keys.compact` and their signatures checked by PyJWT's EdDSA
algorithm object, not by `jwt.decode`: that takes twice the time of the signature itself on every forged key, and reads
JSON with duplicate members.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from relay.keys.compact import ALGORITHM

LENGTH = 32
"""Bytes of a secret and of a public key."""

_EDDSA = jwt.get_algorithm_by_name(ALGORITHM)
_public = lru_cache(maxsize=4096)(Ed25519PublicKey.from_public_bytes)


def new_secret() -> bytes:
    """A new secret, from the system's source of randomness."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def public_of(secret: bytes) -> bytes:
    """The public key that belongs to a secret. Raises ValueError unless it has 32 bytes."""
    return Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def sign(secret: bytes, data: bytes) -> bytes:
    """The signature, 64 bytes."""
    return Ed25519PrivateKey.from_private_bytes(secret).sign(data)


def verify(public: bytes, data: bytes, signature: bytes) -> bool:
    """Whether the signature is right; False too where `public` is no public key."""
    try:
        key = _public(public)
    except ValueError:
        return False
    return bool(_EDDSA.verify(data, key, signature))


def encode(secret: bytes, typ: str, kid: str, claims: dict[str, Any]) -> str:
    """A compact token."""
    key = Ed25519PrivateKey.from_private_bytes(secret)
    return jwt.encode(claims, key, algorithm=ALGORITHM, headers={"typ": typ, "kid": kid})
