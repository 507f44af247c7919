"""The two secrets of a node: made once, kept where only their owner reads them, never guessed when they are damaged."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from relay.keys.forms import Kind
from relay.keys.private import PrivateKey
from relay.node.errors import StartError
from relay.node.keyfiles import SIGNING_NAME, make_directory, operator_key, signing_key


def test_they_are_made_once(tmp_path: Path) -> None:
    """The second start finds what the first one made; files and directory are closed to others."""
    data = tmp_path / "data"
    make_directory(data)
    make_directory(data)
    operator, signer = operator_key(data / "operator.key"), signing_key(data)
    assert operator.kind is Kind.OPERATOR
    assert (operator_key(data / "operator.key").id, signing_key(data).kid) == (operator.id, signer.kid)
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    for name in ("operator.key", SIGNING_NAME):
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "something else\n", "é", "a master key"])
def test_a_damaged_operator_key_stops_the_start(tmp_path: Path, text: str) -> None:
    """With the file's name and the next step; what the file holds is not repeated."""
    path = tmp_path / "operator.key"
    if text == "a master key":
        text = PrivateKey.generate(Kind.MASTER).text
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StartError) as error:
        operator_key(path)
    assert str(path) in str(error.value)
    assert not text.strip() or text.strip() not in str(error.value)


@pytest.mark.parametrize("text", ["", "zz" * 32, "00" * 31])
def test_a_damaged_signing_key_stops_the_start(tmp_path: Path, text: str) -> None:
    """With the file's name and the next step."""
    (tmp_path / SIGNING_NAME).write_text(text)
    with pytest.raises(StartError, match=SIGNING_NAME):
        signing_key(tmp_path)


def test_a_place_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    """With the operator's sentence."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="--data"):
        make_directory(tmp_path / "file" / "data")
    with pytest.raises(StartError, match="--data"):
        signing_key(tmp_path / "absent")
