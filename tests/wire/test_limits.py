"""The limits that an agent asks for: what a relay that is older than they are leaves out, and what fits a HELLO."""

from __future__ import annotations

import pytest

from relay.wire import frames, hello
from relay.wire.limits import MOST_RATE, TunnelLimits, not_kept


@pytest.mark.parametrize(
    ("kept", "names"),
    [((), ["demo", "api"]), (("api",), ["demo"]), (("api", "demo"), []), (("other", "demo"), ["api"])],
)
def test_a_relay_that_keeps_none_of_a_names_limits_is_found(kept: tuple[str, ...], names: list[str]) -> None:
    """Each name that was asked for and is not repeated, in the order of asking."""
    assert not_kept({"demo": TunnelLimits(5), "api": TunnelLimits(None, 5)}, kept) == names
    assert not_kept({}, kept) == []


def test_limits_of_many_names_fit_a_hello() -> None:
    """As many names as there may be, each of usual length and with both limits at their highest, beside a real key."""
    names = tuple(f"{number:02}" + "n" * 30 for number in range(hello.MAX_NAMES))
    said = hello.Hello("i", 0, 1, "k" * 4096, names, limits=dict.fromkeys(names, TunnelLimits(MOST_RATE, MOST_RATE)))
    payload = hello.encode_hello(said)
    frames.encode(frames.HELLO, 0, payload)
    assert hello.decode_hello(payload) == said
