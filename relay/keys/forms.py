"""What keys look like: kinds, ids, checksums, the patterns for secret scanners. It knows no cryptography.

Every key text is `mtk_<kind>_…` and ends with six base62 digits of the CRC-32 over all before them, so that a mistyped
key is found without asking anybody, and a key in a file is told from text that only looks like one. A public id is
`mtk_<kind>_<12 base62 digits>` and no secret.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType

from relay.keys import compact
from relay.keys.errors import BadKey, Reason

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_LENGTH = 12
SECRET_LENGTH = 43
"""Base62 digits of 32 bytes."""
CHECKSUM_LENGTH = 6
PUBLIC_LENGTH = 32
MAX_LENGTH = 4096
"""No key text has more characters; the forms below see to it."""

NOT_A_KEY = "(not a key)"


class Kind(StrEnum):
    """The kinds of key; the first two are private keys of their holder, the others are signed by a relay."""

    OPERATOR = "operator"
    MASTER = "master"
    CHILD = "child"
    VISITOR = "visitor"

    @property
    def prefix(self) -> str:
        """What every text and every id of this kind begins with."""
        return f"mtk_{self.value}_"

    @property
    def private(self) -> bool:
        """Whether a key of this kind is a private key that never leaves the machine of its holder."""
        return self in (Kind.OPERATOR, Kind.MASTER)


def _source(kind: Kind, header: str, payload: str) -> str:
    """A regular expression for key texts; `header` and `payload` are how often a character of those parts stands."""
    if kind.private:
        return rf"{kind.prefix}[0-9A-Za-z]{{{ID_LENGTH}}}_[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}"
    part = "[0-9A-Za-z_-]"
    return rf"{kind.prefix}eyJ{part}{header}\.eyJ{part}{payload}\.{compact.SIGNATURE}[0-9A-Za-z]{{{CHECKSUM_LENGTH}}}"


PATTERNS: Mapping[Kind, str] = MappingProxyType({kind: _source(kind, "+", "+") for kind in Kind})
"""For secret scanners; only what RE2, PCRE and Python have in common. The checksum decides afterwards."""

# With bounds, the work per position of a hostile text is bounded too.
_BOUNDS = (f"{{1,{compact.MAX_HEADER - 3}}}", f"{{1,{compact.MAX_PAYLOAD - 3}}}")
_FORMS = {kind: re.compile(_source(kind, *_BOUNDS)) for kind in Kind}
_ANY = re.compile("|".join(_source(kind, *_BOUNDS) for kind in Kind))
_PREFIXES = tuple((kind.prefix, kind) for kind in Kind)
_ID = re.compile(rf"mtk_(?:{'|'.join(Kind)})_[0-9A-Za-z]{{{ID_LENGTH}}}")
_BEGUN = re.compile(rf"(mtk_(?:{'|'.join(Kind)})_)[\w.-]+")
_VALUES = {digit: value for value, digit in enumerate(DIGITS)}


def without_keys(text: str) -> str:
    """The text with nothing of a key, whole or not, but its kind: for logs of what somebody else has sent."""
    return _BEGUN.sub(r"\1…", text) if "mtk_" in text else text


def kind_of(text: str) -> Kind | None:
    """The kind that a key text or public id begins with; it may still be anything behind that."""
    for prefix, kind in _PREFIXES:
        if text.startswith(prefix):
            return kind
    return None


def is_public_id(text: str) -> bool:
    """Whether this is the form of a public id."""
    return _ID.fullmatch(text) is not None


def new_id(kind: Kind) -> str:
    """A random public id."""
    return kind.prefix + id_of_bytes(os.urandom(32))


def id_of_bytes(digest: bytes) -> str:
    """The digits of an id out of at least 16 bytes that look random."""
    return base62(int.from_bytes(digest, "big"), ID_LENGTH)


def check_text(text: str) -> Kind:
    """The kind of a key text whose form and checksum are right. Raises BadKey: malformed, mistyped."""
    kind = kind_of(text)
    if kind is None:
        names = ", ".join(prefix for prefix, _ in _PREFIXES)
        raise BadKey(Reason.MALFORMED, f"This is not a key: a key begins with one of {names}.")
    if is_public_id(text):
        raise BadKey(
            Reason.MALFORMED, f"This is the public id of a {kind} key, not the key itself; give the whole key."
        )
    if _FORMS[kind].fullmatch(text) is None:
        raise BadKey(
            Reason.MALFORMED,
            f"This {kind} key is cut short, too long, or has characters that no key has; copy it again.",
        )
    if not _fits(text):
        raise BadKey(Reason.MISTYPED, f"This {kind} key is mistyped: its checksum does not fit; copy it again.")
    return kind


def find_keys(text: str) -> Iterator[tuple[int, str]]:
    """Every key in a text with the place where it begins; what fails its checksum is none. Takes linear time.

    Bytes of any kind can be given decoded as latin-1.
    """
    at = text.find("mtk_")
    while at >= 0:
        match = _ANY.match(text, at)
        found = match is not None and _fits(match[0])
        if match is not None and found:
            yield at, match[0]
        # Only a real key is skipped whole: what merely looks like one may hold the beginning of a real one.
        at = text.find("mtk_", match.end() if match is not None and found else at + 4)


def shown(text: str) -> str:
    """What a message may say of a key: the public id of a key text or of an id, else `NOT_A_KEY`. Never a secret."""
    if is_public_id(text):
        return text
    try:
        kind = check_text(text)
        if kind.private:
            return text[: len(kind.prefix) + ID_LENGTH]
        key_id = compact.read_object(text.split(".", 2)[1]).get("jti")
    except BadKey:
        return NOT_A_KEY
    return key_id if isinstance(key_id, str) and is_public_id(key_id) and kind_of(key_id) is kind else NOT_A_KEY


def public_text(public: bytes) -> str:
    """The public half of a key as it is written down: base64url without padding."""
    return compact.encode(public)


def read_public(text: str) -> bytes:
    """The 32 bytes of the public half of a key. Raises ValueError for any other text."""
    public = compact.decode_strictly(text)
    if len(public) != PUBLIC_LENGTH:
        raise ValueError(f"the public half of a key has {PUBLIC_LENGTH} bytes")
    return public


def with_checksum(body: str) -> str:
    """`body`, which must be ASCII, and its checksum behind it."""
    return body + base62(zlib.crc32(body.encode("ascii")), CHECKSUM_LENGTH)


def base62(value: int, width: int) -> str:
    """The last `width` digits of a number."""
    digits = []
    for _ in range(width):
        value, digit = divmod(value, 62)
        digits.append(DIGITS[digit])
    return "".join(reversed(digits))


def number(digits: str) -> int:
    """The number that base62 digits stand for. Raises KeyError for any other character."""
    value = 0
    for digit in digits:
        value = value * 62 + _VALUES[digit]
    return value


def _fits(text: str) -> bool:
    return with_checksum(text[:-CHECKSUM_LENGTH]) == text
