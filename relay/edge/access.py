"""Who may come in: what a request shows, held against the rules of the tunnel that it calls. Pure.

It alone decides what counts as a credential, what passes without one, and what the local service never sees of it.
Whether a key or a password is right is the gate's affair; a tunnel without rules never comes here.
"""

from __future__ import annotations

import binascii
import re
import unicodedata
import zlib
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final, Protocol

from relay.edge.answers import Code
from relay.edge.guard import Body, Request
from relay.wire.access import MAX_PASSWORD, AccessRules

KEY_PREFIX: Final = b"mtk_visitor_"

# Plain segments only: what a local service might read as another path (dots, escapes, parameters, empty ones) is asked
# for a credential like everything else.
_WELL_KNOWN: Final = re.compile(rb"/\.well-known(?:/[0-9A-Za-z_~-][0-9A-Za-z._~-]*)+/?(?:\?.*)?")
# By these some frameworks take a request for another one than its first line says.
_DIVERTING: Final = frozenset(
    b"x-original-url x-rewrite-url x-http-method-override x-http-method x-method-override".split()
)
_WANTED: Final = {
    "visitor_key": "a visitor key, as Authorization: Bearer mtk_visitor_…",
    "basic": "a user with a password",
}


class Standing(IntEnum):
    """What became of a visitor key."""

    GOOD = 0
    BAD = 1
    ELSEWHERE = 2
    """Genuine and valid, but for another tunnel."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """On a visitor key; `detail` is what is wrong with it, in a few words that repeat nothing of it, `code` in one."""

    standing: Standing
    key_id: str = ""
    """Empty where nobody knows whose key it is."""
    detail: str = ""
    code: str = ""
    lineage: tuple[str, ...] = ()
    signer: str = ""
    """Id of the key that signed it, of a good one."""


@dataclass(frozen=True, slots=True)
class Let:
    """The request goes on, as `request`: without the credential that was for the relay."""

    request: Request
    key_id: str = ""
    """Of the visitor key that it came in by."""
    signer: str = ""
    """Of the key that signed that one."""


@dataclass(frozen=True, slots=True)
class No:
    """The relay answers by itself; `challenges` are values of `WWW-Authenticate`."""

    code: Code
    detail: str
    challenges: tuple[bytes, ...] = ()
    verdict: Verdict | None = None
    """On the visitor key that was shown."""


@dataclass(frozen=True, slots=True)
class Password:
    """A password that must be held against a hash; `refusal` is the answer if it is wrong."""

    password: str = field(repr=False)
    hash: str = field(repr=False)
    known: bool
    """Whether there is such a user; else the hash is another user's, so that the answer takes as long."""
    refusal: No = field(compare=False)
    project: str = ""
    """Whose hash it is."""


class TooManyChecks(Exception):
    """So many passwords are being checked that one more would wait too long."""


class Gate(Protocol):
    """Tells good keys and passwords from others."""

    def visitor_key(self, text: str, name: str, project: str) -> Verdict:
        """Whether the key lets its bearer into the tunnel `name` of `project`. No I/O."""

    def remembered(self, shown: Password) -> bool | None:
        """Whether the password fits the hash, where that is known from a moment ago."""

    async def password(self, shown: Password, address: str) -> bool:
        """Whether the password fits the hash; `address` is who asks. Raises `TooManyChecks`."""


class Door(Protocol):
    """What has to be known of a tunnel."""

    name: str
    project: str
    access: AccessRules | None


def decide(request: Request, door: Door, gate: Gate, proved: Password | None = None) -> Let | No | Password:
    """What a tunnel with rules does with a request. `proved` is a password that was found right for it already."""
    rules = door.access
    if rules is None:
        return Let(request)
    shown = [value for name, value in request.fields if name.lower() == b"authorization"]
    if len(shown) > 1:
        return No(Code.BAD_REQUEST, "more than one Authorization field")
    scheme, _, credential = shown[0].partition(b" ") if shown else (b"", b"", b"")
    scheme, credential = scheme.lower(), credential.strip(b" ")
    if _is_free(request):
        ours = credential.startswith(KEY_PREFIX) if scheme == b"bearer" else scheme == b"basic" and bool(rules.basic)
        return Let(_bare(request) if ours else request)
    if scheme == b"bearer" and rules.visitor_keys:
        verdict = gate.visitor_key(credential.decode("latin-1"), door.name, door.project)
        if verdict.standing is Standing.GOOD:
            return Let(_bare(request), verdict.key_id, verdict.signer)
        if verdict.standing is Standing.ELSEWHERE:
            return No(Code.FORBIDDEN, verdict.detail, verdict=verdict)
        return _ask(request, rules, verdict.detail, verdict)
    if scheme == b"basic" and rules.basic:
        return _basic(request, door, credential, gate, proved)
    wanted = f"it takes {' or '.join(_WANTED[way] for way in rules.ways)}"
    return _ask(request, rules, wanted if shown else f"no Authorization field; {wanted}")


def _basic(request: Request, door: Door, credential: bytes, gate: Gate, proved: Password | None) -> Let | No | Password:
    rules = door.access
    assert rules is not None
    wrong = _ask(request, rules, "the user or the password is wrong")
    try:  # RFC 7617 §2.1: UTF-8, in normal form C
        text = unicodedata.normalize("NFC", binascii.a2b_base64(credential, strict_mode=True).decode())
    except ValueError:
        return wrong
    user, colon, password = text.partition(":")
    if not colon or len(password) > MAX_PASSWORD:
        return wrong
    known = rules.hash_of(user)
    # Always the same one for the same user: a different time from call to call would tell that there is none.
    stand_in = rules.basic[zlib.crc32(user.encode()) % len(rules.basic)][1]
    shown = Password(password, known or stand_in, known is not None, wrong, door.project)
    right = True if shown == proved else gate.remembered(shown)
    if right is None:
        return shown
    return Let(_bare(request)) if right and shown.known else wrong


def _ask(request: Request, rules: AccessRules, detail: str, verdict: Verdict | None = None) -> No:
    """401 with a challenge for each way in (RFC 6750 §3, RFC 7617 §2)."""
    realm = request.host.name.encode()
    challenges = []
    if rules.visitor_keys:
        # Nothing more is said to a request that showed nothing (RFC 6750 §3.1).
        error = b"" if verdict is None else b', error="invalid_token"'
        challenges.append(b'Bearer realm="%b"%b' % (realm, error))
    if rules.basic:
        challenges.append(b'Basic realm="%b", charset="UTF-8"' % realm)
    return No(Code.UNAUTHORIZED, detail, tuple(challenges), verdict)


def _is_free(request: Request) -> bool:
    """Whether a request passes without a credential, since whoever sends it cannot have one yet: a browser's CORS
    preflight, and metadata that tells a client how to get one (RFC 8615, RFC 9728).
    """
    if request.upgrade or request.body is not Body.NONE:
        return False
    names = {name.lower().replace(b"_", b"-") for name, _ in request.fields}
    if names & _DIVERTING:
        return False
    if request.method == b"OPTIONS":
        return request.origin is not None and b"access-control-request-method" in names
    return request.method in (b"GET", b"HEAD") and _WELL_KNOWN.fullmatch(request.target) is not None


def _bare(request: Request) -> Request:
    """The request without `Authorization`; the same object each time, since the same head often comes again."""
    bare = request.bare
    if bare is None:
        fields = [one for one in request.fields if one[0].lower() != b"authorization"]
        bare = request.bare = replace(request, fields=fields)
    return bare
