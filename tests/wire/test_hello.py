"""The handshake's bodies: any bytes give a body or the peer's error, and what was encoded decodes to itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.wire import frames, hello
from relay.wire.errors import RemoteProtocolError
from tests.wire.strategies import any_json, hellos, refusals, renewals, welcomes

DECODERS = (hello.decode_hello, hello.decode_welcome, hello.decode_refused, hello.decode_renew)
GOOD = hello.Hello(instance="8Zk2", slot=0, generation=1, key="a secret", names=("demo",))


@pytest.mark.parametrize("decode", DECODERS)
@given(payload=st.binary(max_size=100) | any_json)
def test_any_bytes_give_a_body_or_the_peers_error(decode: Callable[[bytes], Any], payload: bytes) -> None:
    """Whatever stands in a body, the result can be encoded again, or it is a `RemoteProtocolError` with a text."""
    try:
        said = decode(payload)
    except RemoteProtocolError as error:
        assert str(error).isprintable()
    else:
        encode = getattr(hello, f"encode_{decode.__name__.removeprefix('decode_')}")
        assert decode(encode(said)) == said


@pytest.mark.parametrize("decode", DECODERS)
@given(said=hellos | welcomes | refusals | renewals, data=st.data())
def test_one_wrong_member_is_the_peers_error_or_harmless(
    decode: Callable[[bytes], Any], said: Any, data: st.DataObject
) -> None:
    """A body with one member replaced by anything is read or refused, never anything else."""
    body = json.loads(getattr(hello, f"encode_{type(said).__name__.lower()}")(said))
    body[data.draw(st.sampled_from(sorted(body)))] = json.loads(data.draw(any_json))
    try:
        decode(json.dumps(body).encode())
    except RemoteProtocolError as error:
        assert str(error).isprintable()


@given(hellos)
def test_hello_decodes_to_itself(said: hello.Hello) -> None:
    """Every member of a HELLO comes back, and the whole fits its frame."""
    payload = hello.encode_hello(said)
    assert hello.decode_hello(payload) == said
    frames.encode(frames.HELLO, 0, payload)


@given(welcomes)
def test_welcome_decodes_to_itself(said: hello.Welcome) -> None:
    """Every member of a WELCOME comes back."""
    assert hello.decode_welcome(hello.encode_welcome(said)) == said


@given(refusals)
def test_refused_decodes_to_itself(said: hello.Refused) -> None:
    """Code, message and the time to wait come back."""
    assert hello.decode_refused(hello.encode_refused(said)) == said


@given(renewals)
def test_renew_decodes_to_itself(said: hello.Renew) -> None:
    """The new key comes back."""
    assert hello.decode_renew(hello.encode_renew(said)) == said


@given(hellos, st.dictionaries(st.text(min_size=20), st.integers(), max_size=3))
def test_members_of_a_later_time_are_ignored(said: hello.Hello, more: dict[str, int]) -> None:
    """Members that nobody knows yet change nothing."""
    body = {**json.loads(hello.encode_hello(said)), **more}
    assert hello.decode_hello(json.dumps(body).encode()) == said


def test_the_longest_key_and_the_most_names_fit_a_hello() -> None:
    """A HELLO at its limits fits its frame; a body above 16 KiB is refused before it is read as JSON."""
    names = tuple(f"{number:02}" + "n" * 61 for number in range(hello.MAX_NAMES))
    longest = hello.Hello("i" * 64, 3, 2**53, "k" * hello.MAX_KEY, names, tuple(range(1, 17)), "a" * 128)
    payload = hello.encode_hello(longest)
    frames.encode(frames.HELLO, 0, payload)
    assert hello.decode_hello(payload) == longest
    with pytest.raises(RemoteProtocolError, match="16384"):
        hello.decode_hello(payload + b" " * frames.MAX_HELLO)


def test_the_most_and_longest_addresses_fit_a_welcome() -> None:
    """A WELCOME with 64 tunnels at every limit fits its frame, though it is longer than a HELLO may be."""
    tunnels = tuple((f"{number:02}" + "n" * 61, "u" * 512) for number in range(hello.MAX_NAMES))
    longest = hello.Welcome("s" * 64, tunnels, 3600.0, 2**31, 65535, "r" * 128)
    payload = hello.encode_welcome(longest)
    assert len(payload) > frames.MAX_HELLO
    frames.encode(frames.WELCOME, 0, payload)
    frames.encode(frames.RENEWED, 0, payload)
    assert hello.decode_welcome(payload) == longest


@pytest.mark.parametrize("said", [GOOD, hello.Renew("a secret")])
def test_a_key_does_not_show_in_what_is_printed(said: hello.Hello | hello.Renew) -> None:
    """The representation of a body, which may end up in a log, leaves the key out."""
    assert "a secret" not in repr(said)
    assert "a secret" not in str(said)


def test_a_wrong_key_does_not_show_in_the_error() -> None:
    """The error about a malformed key does not repeat it."""
    body = {**json.loads(hello.encode_hello(GOOD)), "key": "s3cret\n"}
    with pytest.raises(RemoteProtocolError) as caught:
        hello.decode_hello(json.dumps(body).encode())
    assert "s3cret" not in str(caught.value)
