"""docs/keys.md says what the code does: patterns, checksum, the request made by hand, the table of rights is whole."""

from __future__ import annotations

import re
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from relay.keys import compact, forms
from relay.keys.forms import Kind
from relay.keys.private import PrivateKey
from relay.keys.requests import verify_request
from relay.keys.scopes import Scope
from tests.keys.makers import CLAIMS, MASTER, TEXTS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "keys.md").read_text(encoding="utf-8")


def code(containing: str) -> str:
    """The block of Python on the page that contains a text."""
    (block,) = [
        each for each in re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) if containing in each
    ]
    return str(block)


@pytest.mark.parametrize("kind", list(Kind))
def test_the_patterns_are_those_of_the_code(kind: Kind) -> None:
    """Each kind's pattern stands in its row, to the letter."""
    assert f"| {kind} | `{forms.PATTERNS[kind]}` |" in PAGE


def test_the_checksum_on_the_page_is_right() -> None:
    """The page's function accepts every kind of key, and none that was mistyped."""
    names: dict[str, Any] = {}
    exec(code("def is_key"), names)
    for text in TEXTS.values():
        assert names["is_key"](text)
        assert not names["is_key"](text[:-9] + ("a" if text[-9] != "a" else "b") + text[-8:])


def test_the_worked_example_is_right() -> None:
    """Each line of the example follows from its key."""
    shown = dict(re.findall(r"^\| ([^|]+) \| `([^`]+)`", PAGE[PAGE.index("A worked example") :], re.MULTILINE))
    key = PrivateKey.parse(shown["key"])
    assert key.secret == bytes(range(32)) == MASTER.secret
    assert shown["public id"] == key.id
    assert shown["key"] == f"{key.id}_{shown['secret']}{shown['in base62']}"
    crc = zlib.crc32(shown["key"][:-6].encode())
    assert f"`{crc:#x}`, that is {crc}" in PAGE


def test_the_request_made_by_hand_is_accepted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program on the page, which knows nothing of ours, prints a token that proves its key."""
    monkeypatch.setenv("RELAY_MASTER_KEY", MASTER.text)
    exec(code("jwt.encode"), {})
    token = capsys.readouterr().out.strip()
    assert verify_request(token, MASTER.public, {"tunnels.example.com"}, time.time()) == MASTER.id


def test_the_scope_on_the_page_is_one() -> None:
    """It is read, and does what the text beside it says."""
    (text,) = re.findall(r'^(\{"names".*\})$', PAGE, re.MULTILINE)
    scope = Scope.from_json(compact.strict_json(text))
    assert scope.allows("mcp-a-b")
    assert scope.tunnels == 2


def test_every_claim_is_on_the_page() -> None:
    """What stands in a token is told."""
    assert [claim for claim in [*CLAIMS, "tun"] if f"`{claim}`" not in PAGE] == []


def test_the_table_of_rights_is_whole() -> None:
    """Between its marks stands one plain table: known columns and words, no operation twice, nothing for visitors."""
    (table,) = re.findall(r"^<!-- rights -->\n(.*?)^<!-- /rights -->", PAGE, re.DOTALL | re.MULTILINE)
    head, rule, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert head == ["operation", *Kind]
    assert set(rule) == {"---"}
    operations = [row[0] for row in rows]
    assert len(set(operations)) == len(operations) > 20
    assert all(re.fullmatch(r"`[a-z ]+`", operation) for operation in operations)
    assert {cell for row in rows for cell in row[1:]} == {"yes", "own project", "itself", "no"}
    assert {row[1] for row in rows} == {"yes"}
    assert {row[4] for row in rows} == {"no"}
