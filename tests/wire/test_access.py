"""The rules of access in a HELLO: what is well formed, what they cost at most, and whether a relay keeps them."""

from __future__ import annotations

import argon2
import pytest

from relay.wire import access, frames, hello
from relay.wire.access import AccessRules, not_enforced, why_not_hash
from relay.wire.errors import RemoteProtocolError

HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$pTsPpGxrQy0KZ8dvmSOsbQaqEFl8WWxnYTUlOhN9lQo"
BOTH = AccessRules(True, (("ann", HASH),))


def test_what_a_tunnel_asks_for_is_told_in_two_words() -> None:
    """The ways in, in a fixed order; a user's hash is found by its exact name."""
    assert BOTH.ways == ("visitor_key", "basic")
    assert AccessRules(True).ways == ("visitor_key",)
    assert AccessRules(False, BOTH.basic).ways == ("basic",)
    assert (BOTH.hash_of("ann"), BOTH.hash_of("Ann")) == (HASH, None)


@pytest.mark.parametrize("hasher", [argon2.PasswordHasher(), argon2.PasswordHasher(1, 8, 1)])
def test_what_argon2_makes_is_taken(hasher: argon2.PasswordHasher) -> None:
    """A hash of the library's own defaults, and one of its cheapest."""
    assert why_not_hash(hasher.hash("swordfish")) == ""


@pytest.mark.parametrize(
    ("memory", "passes", "lanes", "taken"),
    [
        (access.MAX_MEMORY, access.MAX_PASSES, access.MAX_LANES, True),
        (access.MAX_MEMORY + 1, 1, 1, False),
        (1024, access.MAX_PASSES + 1, 1, False),
        (1024, 1, access.MAX_LANES + 1, False),
        (63, 1, 8, False),
        (9999999, 99, 99, False),
    ],
)
def test_a_hash_may_not_cost_the_relay_too_much(memory: int, passes: int, lanes: int, taken: bool) -> None:
    """Memory, passes and lanes each have their bound, and Argon2 its own at the lower end."""
    dear = HASH.replace("m=19456,t=2,p=1", f"m={memory},t={passes},p={lanes}")
    assert (why_not_hash(dear) == "") is taken


def test_the_most_users_fit_a_hello() -> None:
    """As many users as one name may have, with the longest names of one byte a character and hashes of usual length."""
    users = tuple((f"{number:02}" + "u" * (access.MAX_USER - 2), HASH) for number in range(access.MAX_USERS))
    said = hello.Hello("i", 0, 1, "k" * 4096, ("demo",), access={"demo": AccessRules(True, users)})
    payload = hello.encode_hello(said)
    frames.encode(frames.HELLO, 0, payload)
    assert hello.decode_hello(payload) == said


def test_hashes_show_nowhere() -> None:
    """Neither in what is printed of a HELLO, nor in the error about one that is wrong."""
    said = hello.Hello("i", 0, 1, "k", ("demo",), access={"demo": BOTH})
    assert "argon2" not in repr(said)
    payload = hello.encode_hello(said).replace(b"t=2", b"t=9")
    with pytest.raises(RemoteProtocolError) as caught:
        hello.decode_hello(payload)
    assert HASH[-20:] not in str(caught.value)


@pytest.mark.parametrize(
    ("echoed", "names"),
    [
        ({"demo": ("basic", "visitor_key")}, []),
        ({}, ["demo"]),
        ({"demo": ()}, ["demo"]),
        ({"demo": ("basic",)}, ["demo"]),
        ({"demo": ("basic", "visitor_key", "anybody")}, ["demo"]),
        ({"other": ("basic", "visitor_key")}, ["demo"]),
    ],
)
def test_a_relay_that_repeats_other_rules_is_found(echoed: dict[str, tuple[str, ...]], names: list[str]) -> None:
    """Fewer ways than asked for are as wrong as more: only an equal set is what was asked for."""
    assert not_enforced({"demo": BOTH}, echoed) == names
    assert not_enforced({}, echoed) == []
