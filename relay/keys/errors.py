"""What can be wrong with a key, told apart by a reason that programs read and a sentence that people read.

No sentence holds a secret or anything else out of the key that was shown.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a key was not accepted."""

    MISTYPED = "mistyped"
    """The checksum does not fit."""
    MALFORMED = "malformed"
    """Not the form of a key at all, or claims that make no sense."""
    ALGORITHM = "algorithm"
    TYPE = "type"
    """Another kind of key or token than the one that is needed here."""
    SIGNER = "signer"
    """Signed by a key that this relay does not know."""
    RETIRED = "retired"
    """Signed by a key that counts no longer, so that nobody knows whether it is genuine."""
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET = "not_yet"
    LIFE = "life"
    """Valid for longer than is allowed, or ends before it begins."""


class BadKey(Exception):
    """A key, or a token that a key signed, is not accepted; `str()` is one sentence.

    `key_id` is the public id where the signature was proven before something else turned out to be wrong (an expired
    key, say), and empty where nobody knows whose it is.
    """

    def __init__(self, reason: Reason, sentence: str, key_id: str = "") -> None:
        super().__init__(reason, sentence, key_id)
        self.reason = reason
        self.key_id = key_id

    def __str__(self) -> str:
        return str(self.args[1])
