"""What a node knows of revoked keys: told once, refused from then on; and when it must assume that it missed one."""

from __future__ import annotations

from collections.abc import Mapping

from relay.tunnels.revocations import DEAF_AFTER, Revocations, Verdict

ONE = Verdict("mtk_master_a", 1_800_000_000.0)


def test_each_key_is_told_once() -> None:
    """Those who have sessions to cut hear of a key when it is new, and before `learn` returns."""
    told: list[Mapping[str, Verdict]] = []
    known = Revocations()
    known.on_revoked.append(told.append)
    known.learn({"a": ONE})
    known.learn({"a": Verdict("another", 2.0), "b": ONE})
    known.learn({"a": ONE, "b": ONE})
    assert told == [{"a": ONE}, {"b": ONE}]
    assert known.verdict("a") == ONE
    assert known.verdict("c") is None


def test_a_verdict_says_by_whom_and_when() -> None:
    """As an agent prints it."""
    assert ONE.sentence("mtk_child_x") == (
        "The key mtk_child_x was revoked by mtk_master_a at 2027-01-15 08:00:00 UTC."
    )


def test_expired_keys_are_forgotten() -> None:
    """Those that are named, known or not; the others stay."""
    known = Revocations()
    known.learn({"a": ONE, "b": ONE})
    assert known.known() == {"a", "b"}
    known.forget(["b", "c"])
    assert (known.verdict("a"), known.verdict("b"), known.known()) == (ONE, None, {"a"})


def test_without_word_from_the_registry_a_node_is_deaf() -> None:
    """From its start until it first heard, and again some seconds after it last did."""
    known = Revocations()
    assert known.deaf(0.0)
    known.heard(100.0)
    assert not known.deaf(100.0 + DEAF_AFTER)
    assert known.deaf(100.1 + DEAF_AFTER)
