"""What property tests draw from: frames, messages good and bad, handshake bodies."""

from __future__ import annotations

import dataclasses
import json

from hypothesis import strategies as st

from relay.wire import access, frames, hello
from relay.wire import limits as wire_limits
from relay.wire.errors import LocalProtocolError

KINDS = sorted(frames.NAMES)
STREAMS = st.sampled_from([1, 2, 3, 255, 65536, frames.MAX_STREAM_ID]) | st.integers(1, frames.MAX_STREAM_ID)


def least(kind: int) -> int:
    """The shortest payload that `decode` lets through, found by asking it."""
    for length in range(16):
        try:
            frames.encode(kind, 0, bytes(length))
        except LocalProtocolError:
            try:
                frames.encode(kind, 1, bytes(length))
            except LocalProtocolError:
                continue
        return length
    raise AssertionError(f"no payload fits {kind:#x}")


def takes_stream(kind: int, stream: int) -> bool:
    try:
        frames.encode(kind, stream, bytes(least(kind)))
    except LocalProtocolError:
        return False
    return True


@st.composite
def good_frames(draw: st.DrawFn) -> tuple[int, int, bytes]:
    """(type, stream, payload) that `encode` takes."""
    kind = draw(st.sampled_from(KINDS))
    on_session, on_stream = takes_stream(kind, 0), takes_stream(kind, 1)
    stream = draw(STREAMS) if on_stream and not (on_session and draw(st.booleans())) else 0
    if kind == frames.CREDIT:
        return kind, stream, frames.U32.pack(draw(st.integers(1, frames.MAX_CREDIT)))
    shortest = least(kind)
    longest = shortest if kind in (frames.PING, frames.PONG) else shortest + 40
    return kind, stream, draw(st.binary(min_size=shortest, max_size=longest))


extension_frames = st.builds(
    lambda kind, stream, payload: frames.HEADER.pack(stream, kind << 24 | len(payload)) + payload,
    st.integers(frames.FIRST_EXTENSION, 0xFF),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=40),
)

# Any 32-bit stream, any type, any short payload: mostly wrong somewhere, seldom everywhere.
strange_frames = st.builds(
    lambda kind, stream, payload: frames.HEADER.pack(stream, kind << 24 | len(payload)) + payload,
    st.sampled_from(KINDS) | st.integers(0, 0xFF),
    st.sampled_from([0, 1, 2**31]) | st.integers(0, 2**32 - 1),
    st.binary(max_size=12),
)

good_messages = st.lists(good_frames(), max_size=6).map(lambda some: b"".join(frames.encode(*frame) for frame in some))


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Any bytes at all, with good frames, strange ones, cut ones and noise in likely places."""
    good = good_frames().map(lambda frame: frames.encode(*frame))
    piece = good | extension_frames | strange_frames | st.binary(max_size=20)
    message = b"".join(draw(st.lists(piece, max_size=6)))
    if message and draw(st.booleans()):
        message = message[: draw(st.integers(0, len(message)))]
    if message and draw(st.booleans()):
        at = draw(st.integers(0, len(message) - 1))
        message = message[:at] + draw(st.binary(min_size=1, max_size=1)) + message[at + 1 :]
    return message


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` in pieces, some of them empty."""
    at = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


# What the handshake's strings may hold: no control characters, no surrogates.
_CHARACTERS = st.characters(exclude_categories=("Cs", "Cc"))


def texts(most: int) -> st.SearchStrategy[str]:
    return st.text(_CHARACTERS, max_size=most)


labels = st.from_regex(hello.LABEL, fullmatch=True)

_B64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
hashes = st.builds(
    lambda lanes, memory, passes, salt, digest: f"$argon2id$v=19$m={memory},t={passes},p={lanes}${salt}${digest}",
    st.integers(1, access.MAX_LANES),
    st.integers(8 * access.MAX_LANES, access.MAX_MEMORY),
    st.integers(1, access.MAX_PASSES),
    st.text(_B64, min_size=11, max_size=86).filter(lambda text: len(text) % 4 != 1),
    st.text(_B64, min_size=22, max_size=86).filter(lambda text: len(text) % 4 != 1),
)
users = st.text(_CHARACTERS, min_size=1, max_size=access.MAX_USER).filter(lambda user: not access.why_not_user(user))
rules = st.builds(
    access.AccessRules,
    visitor_keys=st.booleans(),
    basic=st.dictionaries(users, hashes, max_size=2).map(lambda known: tuple(known.items())),
).filter(lambda one: bool(one.ways))

_rates = st.none() | st.integers(1, wire_limits.MOST_RATE)
limits = st.builds(wire_limits.TunnelLimits, _rates, _rates).filter(lambda one: one != wire_limits.TunnelLimits())

hellos = st.builds(
    lambda given, braked, *asked: dataclasses.replace(
        given,
        access=dict(zip(given.names, asked, strict=False)),
        limits=dict(zip(reversed(given.names), braked, strict=False)),
    ),
    st.builds(
        hello.Hello,
        instance=st.from_regex(r"[0-9A-Za-z_-]{1,64}", fullmatch=True),
        slot=st.integers(0, hello.MAX_SLOTS - 1),
        generation=st.integers(0, 2**53),
        key=texts(40),
        names=st.lists(labels, max_size=4, unique=True).map(tuple),
        versions=st.lists(st.integers(1, hello.MAX_VERSION), min_size=1, max_size=16).map(tuple),
        agent=texts(128),
    ),
    st.lists(limits, max_size=2),
    rules,
    rules,
)

welcomes = st.builds(
    lambda said, braked, *ways: dataclasses.replace(
        said,
        access={name: told for (name, _), told in zip(said.tunnels, ways, strict=False)},
        limits=tuple(name for name, _ in said.tunnels[:braked]),
    ),
    st.builds(
        hello.Welcome,
        session=texts(64),
        tunnels=st.lists(st.tuples(texts(63), texts(80)), max_size=4, unique_by=lambda tunnel: tunnel[0]).map(tuple),
        ping_interval=st.floats(0.05, 3600),
        max_streams=st.integers(1, 2**31),
        version=st.integers(1, hello.MAX_VERSION),
        relay=texts(128),
    ),
    st.integers(0, 4),
    st.lists(st.sampled_from([access.VISITOR_KEY, access.BASIC, "badge"]), max_size=3).map(tuple),
)

refusals = st.builds(hello.Refused, code=texts(64), message=texts(200), retry_after=st.none() | st.floats(0, 86400))

renewals = st.builds(hello.Renew, key=texts(200))

_BODIES = (hello.Hello, hello.Welcome, hello.Refused, hello.Renew)
_MEMBERS = st.sampled_from(
    sorted(
        {member for body in _BODIES for member in body.__dataclass_fields__}
        | {"name", "url", "later", "visitor_keys", "basic", "rate", "rate_per_address", "demo"}
    )
)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**60) | st.floats() | st.text(max_size=8) | _MEMBERS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_MEMBERS, inner, max_size=8),
    max_leaves=20,
).map(lambda value: json.dumps(value).encode())
"""JSON of any shape, with the members that the handshake knows in likely and unlikely places."""
