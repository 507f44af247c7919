"""The audit's chain: a sound export is accepted, and whatever is done to one is found."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.keys import chain
from relay.keys.chain import GENESIS, AuditRow, Head, Tampered, verify_export
from tests.keys.makers import CHILD, LINEAGE, MASTER, NODE, OTHER_NODE, any_json

PUBLIC = {NODE.kid: NODE.public}
ROWS = 40
HEADS_AT = (5, 9, 17, 31, 36)
"""Rows after which the relay signed a head for its file."""


def row(seq: int, **changes: Any) -> AuditRow:
    members: dict[str, Any] = {
        "seq": seq,
        "at": f"2026-01-02T03:04:{seq % 60:02}.000000Z",
        "actor": MASTER.id if seq % 3 else "",
        "lineage": LINEAGE[:1] if seq % 3 else (),
        "action": "key.mint" if seq % 2 else "key.revoke",
        "subject": CHILD.key_id,
        "project": "proj_mcp",
        "address": "192.0.2.7",
        "details": {"label": f"no. {seq} – “ü”", "life": 86_400, "share": 0.25, "names": ["mcp-*"], "tunnel": None},
    }
    return AuditRow(**{**members, **changes})


def hashes(rows: list[AuditRow], previous: str = GENESIS) -> list[str]:
    made = []
    for each in rows:
        previous = chain.digest(previous, each)
        made.append(previous)
    return made


def end(seq: int, hash: str, previous: str = GENESIS) -> Head:
    return chain.sign_head(NODE, seq, hash, "2026-01-03T00:00:00.000000Z", previous)


TRAIL = [row(seq) for seq in range(1, ROWS + 1)]
HASHES = hashes(TRAIL)


def heads_file() -> list[str]:
    lines, previous = [], GENESIS
    for seq in HEADS_AT:
        head = end(seq, HASHES[seq - 1], previous)
        previous = head.digest
        lines.append(chain.head_line(head))
    return lines


HEADS = heads_file()
EXPORT = [chain.row_line(each, hash) for each, hash in zip(TRAIL, HASHES, strict=True)]
EXPORT.append(chain.head_line(end(ROWS, HASHES[-1])))


def found(lines: list[str], heads: list[str] = HEADS, public: dict[str, bytes] = PUBLIC, **asked: Any) -> Tampered:
    with pytest.raises(Tampered) as caught:
        verify_export(lines, public, heads, **asked)
    return caught.value


# ---------------------------------------------------------------------------------------------------- sound


def test_a_sound_export() -> None:
    """All rows, their numbers and the head are told, with the heads of before, without them, and as a stream."""
    expected = chain.Verified(ROWS, 1, ROWS, end(ROWS, HASHES[-1]))
    assert verify_export(EXPORT, PUBLIC, HEADS) == expected
    assert verify_export((f"{line}\n" for line in EXPORT), PUBLIC) == expected
    assert verify_export([*EXPORT, "\n"], PUBLIC, [*HEADS, ""], first=1) == expected


def test_the_rows_come_back_whole() -> None:
    """A row read from its line is the row that was written."""
    assert [AuditRow.from_json(json.loads(line)["row"]) for line in EXPORT[:-1]] == TRAIL
    assert [chain.head_line(head) for head in chain.read_heads(HEADS)] == HEADS


def test_an_export_that_begins_later() -> None:
    """It says with which row it begins, and a head of the row before has to agree."""
    begin = 10
    late = [chain.first_line(begin, HASHES[begin - 2]), *EXPORT[begin - 1 :]]
    verified = verify_export(late, PUBLIC, HEADS)
    assert (verified.rows, verified.first, verified.last) == (ROWS - begin + 1, begin, ROWS)
    assert verify_export(late, PUBLIC, HEADS, first=begin) == verified
    assert "begins with row 10, not with row 1" in str(found(late, first=1))
    assert found([chain.first_line(begin, HASHES[begin]), *EXPORT[begin - 1 :]]).seq in (begin - 1, begin)


def test_an_empty_audit() -> None:
    """A relay that has nothing to tell signs that too."""
    verified = verify_export([chain.head_line(end(0, GENESIS))], PUBLIC)
    assert (verified.rows, verified.first, verified.last) == (0, 0, 0)
    assert "cut off" in str(found([], []))


def test_heads_of_several_nodes_one_file_behind_the_other() -> None:
    """Each node's file begins a chain of its own, and all have to agree with the export."""
    other = chain.sign_head(OTHER_NODE, 20, HASHES[19], "2026-01-03T00:00:00.000000Z", GENESIS)
    both = {**PUBLIC, OTHER_NODE.kid: OTHER_NODE.public}
    assert verify_export(EXPORT, both, [*HEADS, chain.head_line(other)]).rows == ROWS
    false = chain.sign_head(OTHER_NODE, 20, HASHES[20], "2026-01-03T00:00:00.000000Z", GENESIS)
    assert found(EXPORT, [*HEADS, chain.head_line(false)], both).seq == 20


def test_heads_go_on_under_a_new_key() -> None:
    """After a node's key was replaced, the next head continues the last one of the old key."""
    last = Head.from_json(json.loads(HEADS[-1])["head"])
    head = chain.sign_head(OTHER_NODE, 38, HASHES[37], "2026-01-03T00:00:00.000000Z", last.digest)
    both = {**PUBLIC, OTHER_NODE.kid: OTHER_NODE.public}
    assert verify_export(EXPORT, both, [*HEADS, chain.head_line(head)]).rows == ROWS


@given(st.dictionaries(st.text(), any_json, max_size=4), st.text())
def test_the_hash_does_not_depend_on_spelling(details: dict[str, Any], subject: str) -> None:
    """A row that went through JSON, as databases store it, has the same hash; NaN has none."""
    one = row(1, details=details, subject=subject)
    try:
        hash = chain.digest(GENESIS, one)
    except ValueError:
        assert "NaN" in json.dumps(details) or "Infinity" in json.dumps(details)
        return
    stored = json.loads(json.dumps(one.to_json(), ensure_ascii=False, indent=1))
    assert chain.digest(GENESIS, AuditRow.from_json(dict(reversed(stored.items())))) == hash
    assert chain.digest(HASHES[0], one) != hash


def test_a_head_is_no_token() -> None:
    """What is signed in a head begins as no token does."""
    head = end(1, HASHES[0])
    assert chain._signed(head).startswith(b"mtk-audit-head\n")


# ---------------------------------------------------------------------------------------------------- tampered


def edit(lines: list[str], chance: random.Random) -> None:
    """One value somewhere in one line becomes another, of the same type."""
    at = chance.randrange(len(lines))
    value = json.loads(lines[at])
    places = list(leaves(value))
    inside, name = chance.choice(places)
    inside[name] = other_than(inside[name], chance)
    lines[at] = json.dumps(value)


def leaves(value: Any) -> Any:
    """Every (container, key) whose value is neither an object nor a list with something in it."""
    pairs: Any = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in pairs:
        if isinstance(inner, dict | list) and inner:
            yield from leaves(inner)
        else:
            yield value, name


def other_than(value: Any, chance: random.Random) -> Any:
    if isinstance(value, str) and value:
        at = chance.randrange(len(value))
        return value[:at] + chance.choice([each for each in "abAB01-_" if each != value[at]]) + value[at + 1 :]
    others: tuple[Any, ...] = ("", 0, 1, -1, 2.5, None, True, [], {})
    return chance.choice([each for each in others if repr(each) != repr(value)])


def delete(lines: list[str], chance: random.Random) -> None:
    at = chance.randrange(len(lines))
    del lines[at : at + chance.randint(1, 3)]


def swap(lines: list[str], chance: random.Random) -> None:
    one, other = chance.sample(range(len(lines)), 2)
    lines[one], lines[other] = lines[other], lines[one]


def insert(lines: list[str], chance: random.Random) -> None:
    """A line of its own, one made to fit the row before it, or a line a second time."""
    at = chance.randrange(len(lines))
    new = row(at + 1, subject="mtk_master_intruder0000")
    previous = HASHES[at - 1] if at else GENESIS
    made = chain.row_line(new, chain.digest(previous, new))
    lines.insert(at, chance.choice([made, chance.choice(lines), "{}", '{"row": 1}']))


def cut(lines: list[str], chance: random.Random) -> None:
    """The last rows go, with the signed head or without."""
    last = lines[-1]
    del lines[chance.randint(0, ROWS - 1) :]
    if chance.random() < 0.5:
        lines.append(last)


def replay(lines: list[str], chance: random.Random) -> None:
    """An old head, a real one, stands for the end: of all the rows, or of those that it really was the end of."""
    old = chance.choice(HEADS)
    if chance.random() < 0.5:
        del lines[-1]
    else:
        # The newest head in the file knows of row 36: what ends there is an export of that day, and no tampering.
        old = chance.choice(HEADS[:-1])
        del lines[json.loads(old)["head"]["seq"] :]
    lines.append(old)


def rewrite(lines: list[str], chance: random.Random) -> None:
    """One row becomes another and every hash after it is made to fit again; only the signatures are out of reach."""
    at = chance.randrange(ROWS)
    rows = [*TRAIL[:at], row(at + 1, address="198.51.100.1"), *TRAIL[at + 1 :]]
    made = hashes(rows)
    lines[:-1] = [chain.row_line(each, hash) for each, hash in zip(rows, made, strict=True)]
    if chance.random() < 0.5:  # with a head that another key signed
        lines[-1] = chain.head_line(chain.sign_head(OTHER_NODE, ROWS, made[-1], "2026-01-03T00:00:00.000000Z", GENESIS))


TAMPERINGS: list[Callable[[list[str], random.Random], None]] = [edit, edit, delete, swap, insert, cut, replay, rewrite]


@pytest.mark.parametrize("seed", range(5))
def test_a_hundred_random_tamperings_are_found(seed: int) -> None:
    """Edit, delete, swap, insert, cut the tail, replay an old head, rewrite: each one is found and said."""
    chance = random.Random(seed)
    for turn in range(100):
        tamper = TAMPERINGS[turn % len(TAMPERINGS)]
        lines = copy.copy(EXPORT)
        tamper(lines, chance)
        error = found(lines)
        assert str(error).endswith(".")
        assert 0 <= error.seq <= ROWS + 1


@pytest.mark.parametrize("at", [0, 12, ROWS])
def test_every_value_of_a_line_counts(at: int) -> None:
    """Each value of a row, of the last one and of the signed head, changed by itself, is found."""
    count = len(list(leaves(json.loads(EXPORT[at]))))
    assert count > 5
    for place in range(count):
        for seed in range(6):
            value = json.loads(EXPORT[at])
            inside, name = list(leaves(value))[place]
            inside[name] = other_than(inside[name], random.Random(seed))
            found([*EXPORT[:at], json.dumps(value), *EXPORT[at + 1 :]], [])


@pytest.mark.parametrize(
    "line",
    [
        "",
        "null",
        "[" * 5000,
        '{"row": ' + "[" * 980 + "]" * 980 + ', "hash": ""}',
        "not JSON",
        EXPORT[3].replace('"seq":4', '"seq":4,"seq":4'),
        EXPORT[3].replace('"seq":4', '"seq":4.0'),
        EXPORT[3].replace('"seq":4', '"seq":true'),
        EXPORT[3].replace('"seq":4', '"seq":' + "9" * 5000),
        EXPORT[3].replace('"seq":4', '"seq":4,"note":"unseen"'),
        EXPORT[3].replace('"life":86400', '"life":NaN'),
        EXPORT[3].replace('"life":86400', '"life":1e999'),
        EXPORT[3].replace('"life":86400', '"life":' + "[" * 970 + "]" * 970),
        EXPORT[3].replace('{"hash"', '{"more":1,"hash"'),
        EXPORT[3].replace('"details":{', '"details":{"more":1,'),
        chain.first_line(4, HASHES[2]),
    ],
)
def test_a_line_that_is_none(line: str) -> None:
    """Whatever stands in a row's place is found at that row, and never gives another exception."""
    assert line != EXPORT[3]
    assert found([*EXPORT[:3], line, *EXPORT[4:]]).seq in (4, 5)


@pytest.mark.parametrize(
    "first",
    [
        '{"first": 2}',
        '{"first": {"seq": 0, "previous": ""}}',
        '{"first": {"seq": true, "previous": ""}}',
        '{"first": {"seq": 1, "previous": "00"}}',
        '{"first": {"seq": 2, "previous": null}}',
    ],
)
def test_a_first_line_that_says_nothing(first: str) -> None:
    """An export that begins later says after what."""
    assert "first line" in str(found([first, *EXPORT]))


def test_the_sentence_says_what_was_done() -> None:
    """A missing row, a changed one, a cut end and an old head are told apart, with the row where it shows."""
    gone = found([*EXPORT[:6], *EXPORT[7:]])
    assert (gone.seq, str(gone)) == (7, "Row 7 is missing or stands elsewhere: row 8 is in its place.")
    changed = found([*EXPORT[:6], EXPORT[6].replace("192.0.2.7", "192.0.2.8"), *EXPORT[7:]])
    assert (changed.seq, "does not fit its hash" in str(changed)) == (7, True)
    assert "the signed head is missing" in str(found(EXPORT[:20]))
    assert "its signed head is that of row 9" in str(found([*EXPORT[:-1], HEADS[1]]))
    assert "a signed head knows of row 36" in str(found([*EXPORT[:9], HEADS[1]]))


def test_a_head_with_another_number() -> None:
    """A signature over the right hash at the wrong row is no end of this export."""
    assert "that of row 41" in str(found([*EXPORT[:-1], chain.head_line(end(ROWS + 1, HASHES[-1]))]))


def test_rows_behind_the_end() -> None:
    """Nothing may stand behind the signed head."""
    assert found([*EXPORT, EXPORT[0]]).seq == ROWS + 1
    assert found([*EXPORT, EXPORT[-1]]).seq == ROWS + 1


def test_a_signature_has_one_spelling() -> None:
    """Bits of base64 that carry nothing are not free to be changed, nor is padding."""
    head = json.loads(EXPORT[-1])["head"]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = head["signature"][-1]
    for other in [*alphabet.replace(last, ""), f"{last}==", f"{last}\n", "", "ü", "\ud800"]:
        changed = {**head, "signature": head["signature"][:-1] + other}
        assert "forged" in str(found([*EXPORT[:-1], json.dumps({"head": changed})]))


def test_a_head_of_an_unknown_key() -> None:
    """Only keys that the reader was given count."""
    assert "not among the relay's" in str(found(EXPORT, [], {}))
    assert "forged" in str(found(EXPORT, [], {NODE.kid: OTHER_NODE.public}))


@pytest.mark.parametrize("place", range(1, len(HEADS) - 1))
def test_a_head_that_was_taken_out(place: int) -> None:
    """One missing between others is found, in whichever place."""
    assert "missing" in str(found(EXPORT, [*HEADS[:place], *HEADS[place + 1 :]]))


def test_heads_that_were_moved_or_repeated() -> None:
    """The file of heads is a chain too."""
    found(EXPORT, [HEADS[1], HEADS[0], *HEADS[2:]])
    found(EXPORT, [*HEADS, HEADS[-1]])
    found(EXPORT, [*HEADS, HEADS[0]])
    found(EXPORT, [*HEADS, "{}"])
    found(EXPORT, [*HEADS, EXPORT[0]])
    backwards = end(4, HASHES[3], Head.from_json(json.loads(HEADS[-1])["head"]).digest)
    assert "later row" in str(found(EXPORT, [*HEADS, chain.head_line(backwards)]))


def test_two_heads_that_contradict_each_other() -> None:
    """A relay that signed two histories is caught by its own signatures."""
    other = end(HEADS_AT[-1], HASHES[0], Head.from_json(json.loads(HEADS[-1])["head"]).digest)
    assert "two signed heads" in str(found(EXPORT, [*HEADS, chain.head_line(other)])).lower()
