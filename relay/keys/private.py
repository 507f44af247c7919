"""Operator and master keys: Ed25519 private keys that stay with their holder. The relay only ever sees `public`.

`mtk_<kind>_<id>_<secret><checksum>`: 12 digits of the id, which follow from the public key, 43 of the secret, 6 of the
checksum. Where a key is kept, and who may read that, is not decided here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from relay.keys import forms, requests, signatures
from relay.keys.errors import BadKey, Reason
from relay.keys.forms import Kind


def id_of_public(kind: Kind, public: bytes) -> str:
    """The public id of the operator or master key with this public half."""
    return kind.prefix + forms.id_of_bytes(hashlib.sha256(public).digest())


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """An operator or master key whole. Neither `repr()` nor an error of it shows the secret."""

    kind: Kind
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not self.kind.private or len(self.secret) != signatures.LENGTH:
            raise ValueError(f"a private key is an operator or master key of {signatures.LENGTH} secret bytes")

    @classmethod
    def generate(cls, kind: Kind) -> PrivateKey:
        """A new key."""
        return cls(kind, signatures.new_secret())

    @classmethod
    def parse(cls, text: str) -> PrivateKey:
        """The key with this text. Raises BadKey: malformed, mistyped, and type for keys of another kind."""
        kind = forms.check_text(text)
        if not kind.private:
            raise BadKey(Reason.TYPE, f"This is a {kind} key; an operator or master key is needed here.")
        secret = forms.number(text[-forms.CHECKSUM_LENGTH - forms.SECRET_LENGTH : -forms.CHECKSUM_LENGTH])
        try:
            key = cls(kind, secret.to_bytes(signatures.LENGTH, "big"))
        except OverflowError:
            key = None
        if key is None or not text.startswith(f"{key.id}_"):
            raise BadKey(
                Reason.MALFORMED, f"This {kind} key is put together from two: its id is not that of its secret."
            )
        return key

    @property
    def text(self) -> str:
        """The whole key: the secret that is shown once."""
        secret = forms.base62(int.from_bytes(self.secret, "big"), forms.SECRET_LENGTH)
        return forms.with_checksum(f"{self.id}_{secret}")

    @property
    def id(self) -> str:
        """The public id."""
        return id_of_public(self.kind, self.public)

    @property
    def public(self) -> bytes:
        """The public half, 32 bytes."""
        return signatures.public_of(self.secret)

    def sign_request(self, audience: str, now: float, life: float = 60.0) -> str:
        """A token that proves this key to the relay dialled as `audience`, for `life` seconds from `now`.

        Raises ValueError where `life` is not within (0, 3600].
        """
        return requests.sign_request(self.secret, self.id, audience, now, life)
