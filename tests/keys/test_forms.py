"""Forms of keys: a mistyped character is found, a key is found in any text, a message never shows a secret."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.keys import forms
from relay.keys.errors import BadKey, Reason
from relay.keys.forms import DIGITS, Kind, check_text, find_keys, is_public_id, kind_of, new_id, shown
from tests.keys.makers import IDS, TEXTS, child_text

KINDS = list(Kind)
WRITTEN = DIGITS + "_-."


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_is_told_by_its_text(kind: Kind) -> None:
    """Each kind's text has its kind, its pattern, a right checksum and a public id that is shown for it."""
    text = TEXTS[kind]
    assert kind_of(text) is kind
    assert check_text(text) is kind
    assert re.fullmatch(forms.PATTERNS[kind], text)
    assert shown(text) == shown(IDS[kind]) == IDS[kind]
    assert is_public_id(IDS[kind])
    assert not is_public_id(text)


@pytest.mark.parametrize("kind", KINDS)
def test_every_mistyped_character_is_found(kind: Kind) -> None:
    """At each place of a key, every other character that keys are written with makes it a wrong one."""
    text = TEXTS[kind]
    step = 1 if kind.private else 7  # of a long key every seventh place, all of the last twenty
    places = sorted({*range(0, len(text), step), *range(len(text) - 20, len(text))})
    wrong = [text[:at] + other + text[at + 1 :] for at in places for other in WRITTEN if other != text[at]]
    assert [each for each in wrong if accepted(each)] == []


@given(kind=st.sampled_from(Kind), data=st.data())
def test_other_slips_are_found(kind: Kind, data: st.DataObject) -> None:
    """A lost, doubled or swapped character, and any character at all in the place of another, make a wrong key."""
    text = TEXTS[kind]
    at = data.draw(st.integers(0, len(text) - 2))
    slips = {
        text[:at] + text[at + 1 :],
        text[:at] + text[at] + text[at:],
        text[:at] + text[at + 1] + text[at] + text[at + 2 :],
        text[:at] + data.draw(st.characters()) + text[at + 1 :],
        text[:at],
        text + data.draw(st.characters()),
    }
    assert [each for each in slips - {text} if accepted(each)] == []


@given(st.text() | st.sampled_from(KINDS).flatmap(lambda kind: st.text(WRITTEN).map(lambda text: kind.prefix + text)))
def test_any_text_is_refused_with_a_sentence(text: str) -> None:
    """Whatever is no key gives `BadKey` with a sentence that does not repeat it, and is shown as nothing."""
    with pytest.raises(BadKey) as caught:
        check_text(text)
    assert caught.value.reason is Reason.MALFORMED
    assert str(caught.value).isascii()
    assert caught.value.key_id == ""
    assert shown(text) == (text if is_public_id(text) else forms.NOT_A_KEY)


def test_the_reason_says_what_went_wrong() -> None:
    """A wrong checksum is told from a wrong form, and a public id in a key's place is named as what it is."""
    text = TEXTS[Kind.MASTER]
    for wrong, reason, words in (
        (text[:-1] + ("a" if text[-1] != "a" else "b"), Reason.MISTYPED, "mistyped"),
        (text[:-1], Reason.MALFORMED, "cut short"),
        (text + "\n", Reason.MALFORMED, "characters that no key has"),
        (IDS[Kind.MASTER], Reason.MALFORMED, "public id"),
        ("mtk_mastor_" + text[11:], Reason.MALFORMED, "begins with"),
    ):
        with pytest.raises(BadKey, match=words) as caught:
            check_text(wrong)
        assert caught.value.reason is reason


def test_a_key_has_a_greatest_length() -> None:
    """What looks like a key in all else, checksum too, is refused where it is longer than any key."""
    for parts in ((10, forms.MAX_LENGTH), (400, 10)):
        header, payload = ("eyJ" + "A" * length for length in parts)
        text = forms.with_checksum(f"mtk_child_{header}.{payload}.{'A' * 86}")
        assert not accepted(text)
        assert list(find_keys(text)) == []
    assert max(len(text) for text in TEXTS.values()) < forms.MAX_LENGTH


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_random_and_public(kind: Kind) -> None:
    """New ids are of their kind, have the form of an id, and do not repeat."""
    made = {new_id(kind) for _ in range(1000)}
    assert len(made) == 1000
    assert all(is_public_id(each) and kind_of(each) is kind for each in made)
    assert {digit for each in made for digit in each.removeprefix(kind.prefix)} == set(DIGITS)


@pytest.mark.parametrize(
    "not_one", ["", "mtk_master_", "mtk_master_abcdefghijk", "mtk_master_abcdefghijkl\n", "mtk_peer_abcdefghijkl"]
)
def test_what_is_no_public_id(not_one: str) -> None:
    """An id has twelve digits and a kind that exists, and nothing behind that, a line's end neither."""
    assert not is_public_id(not_one)


@given(st.integers(0, 62**43 - 1))
def test_base62_comes_back(value: int) -> None:
    """A number written in base62 is the number that is read."""
    assert forms.number(forms.base62(value, 43)) == value


def test_shown_does_not_trust_what_stands_in_a_key() -> None:
    """A child key whose claims name no id of a child, or are none, is shown as nothing."""
    for payload in ({"jti": IDS[Kind.MASTER]}, {"jti": "<script>"}, {"jti": ["x"]}, {"id": 1}, "[1, 2, 3]", "nonsense"):
        assert shown(child_text(payload=payload)) == forms.NOT_A_KEY


@given(data=st.data(), rubbish=st.lists(st.binary(max_size=60), min_size=5, max_size=5))
def test_keys_are_found_in_any_bytes(data: st.DataObject, rubbish: list[bytes]) -> None:
    """Each key is found where it begins, between any bytes, also right behind the beginning of another one."""
    texts = [data.draw(st.sampled_from(sorted(TEXTS.values()))) for _ in range(4)]
    begun = data.draw(st.sampled_from(["", "mtk_", "mtk_master_", "mtk_child_eyJ", "mtk_child_eyJx.eyJ"]))
    whole, expected = "", []
    for piece, text in zip(rubbish, texts, strict=False):
        whole += piece.decode("latin-1") + begun
        expected.append((len(whole), text))
        whole += text
    assert list(find_keys(whole + rubbish[4].decode("latin-1"))) == expected


def test_a_key_with_a_wrong_checksum_is_not_found() -> None:
    """What only looks like a key is passed over, and what stands behind it is found."""
    good = TEXTS[Kind.CHILD]
    assert list(find_keys(good[:-1] + ("0" if good[-1] != "0" else "1") + good)) == [(len(good), good)]


@pytest.mark.parametrize(
    "piece",
    ["mtk_", "mtk_child_eyJ", "mtk_child_eyJa.eyJ", "A", "mtk_child_eyJ" + "A" * 240 + ".eyJ" + "mtk_child_eyJA" * 250],
)
def test_finding_takes_linear_time(piece: str) -> None:
    """Four times the text takes some four times as long, however it is made to look like keys."""
    short, long = (cost_of_finding(piece * (size // len(piece))) for size in (60_000, 240_000))
    assert long < 16 * max(short, 0.001)  # quadratic would be 16 times at least


def cost_of_finding(text: str) -> float:
    """Seconds of CPU, the best of three."""
    costs = []
    for _ in range(3):
        began = time.process_time()
        assert list(find_keys(text)) == []
        costs.append(time.process_time() - began)
    return min(costs)


def accepted(text: str) -> bool:
    try:
        check_text(text)
    except BadKey:
        return False
    return True
