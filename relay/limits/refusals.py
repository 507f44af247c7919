"""What a limit says when it refuses: a sentence that a program can act on, when to come back, and the header fields.

Pure. The fields are `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-10, which are structured
fields (RFC 9651). Nothing here tells one visitor of others, or names a key: a limit is always "this tunnel"'s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from relay.limits.months import Month, as_text

Code = Literal["rate_limited", "quota_exhausted", "too_many_streams", "body_too_large"]
MOST_INTEGER = 10**15 - 1
"""The largest integer of a structured field."""
A_WHILE = 1.0  # seconds after which a stream may have ended: nobody knows


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not let in."""

    code: Code
    sentence: str
    retry_after: float | None
    """Seconds after which it would be let in, if nobody else comes; None: it never is."""
    policy: tuple[tuple[bytes, bytes], ...] = ()
    """Header fields."""

    @property
    def weight(self) -> float:
        """Of several refusals the one that lasts longest is told."""
        return math.inf if self.retry_after is None else self.retry_after


def too_fast(rate: int, wait: float, for_each_address: bool = False) -> Refusal:
    """More than `rate` requests a second, in all or from one address."""
    whose = " from one address" if for_each_address else ""
    seconds = max(math.ceil(wait), 1)
    sentence = (
        f"this tunnel takes at most {_many(rate, 'request')} a second{whose}; "
        f"wait {_many(seconds, 'second')}, then send it again"
    )
    name = b"address" if for_each_address else b"requests"
    return Refusal("rate_limited", sentence, wait, _fields(name, rate, b";w=1", seconds))


def month_is_used_up(limit: int, unit: Literal["request", "byte"], month: Month, wall: float) -> Refusal:
    """The requests or bytes of this month; `wall` is seconds since the epoch."""
    sentence = (
        f"the {_many(limit, unit)} a month of this tunnel are used up; they are counted anew from {as_text(month.ends)}"
    )
    wait = month.ends - wall
    name, counted = (b"month", b"") if unit == "request" else (b"month-bytes", b';qu="content-bytes"')
    window = b";w=%d" % (month.ends - month.starts)
    return Refusal("quota_exhausted", sentence, wait, _fields(name, limit, counted + window, math.ceil(wait)))


def too_many_streams(limit: int) -> Refusal:
    """As many are open as may be."""
    sentence = f"this tunnel carries at most {_many(limit, 'request')} at once; send it again when one has ended"
    fields = _fields(b"streams", limit, b';qu="concurrent-requests"', math.ceil(A_WHILE))
    return Refusal("too_many_streams", sentence, A_WHILE, fields)


def too_large(limit: int) -> Refusal:
    """A body above the limit."""
    return Refusal("body_too_large", f"this tunnel takes at most {_many(limit, 'byte')} in a request body", None)


def _many(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _fields(name: bytes, quota: int, parameters: bytes, seconds: int) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"RateLimit-Policy", b'"%s";q=%d%s' % (name, min(quota, MOST_INTEGER), parameters)),
        (b"RateLimit", b'"%s";r=0;t=%d' % (name, seconds)),
    )
