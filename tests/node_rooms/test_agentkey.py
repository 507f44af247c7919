"""The agent key: given, or made once and kept where only its owner reads it."""

from __future__ import annotations

import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from relay.node.agentkey import agent_key
from relay.node.errors import StartError
from relay.settings import ServeSettings

posix = pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX")


def test_a_given_key_is_used_and_no_file_made(tmp_path: Path) -> None:
    """The settings win, and the data directory is not touched."""
    data = tmp_path / "data"
    assert agent_key(ServeSettings(data=data, agent_key="given")) == "given"
    assert not data.exists()


@posix
def test_a_key_is_made_once(tmp_path: Path) -> None:
    """At the first start, in a directory and a file of the owner's own; later starts find the same."""
    settings = ServeSettings(data=tmp_path / "state" / "relay")
    key = agent_key(settings)
    assert len(key) >= 40
    assert key.isascii()
    assert stat.S_IMODE(settings.key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.data.stat().st_mode) == 0o700
    assert agent_key(settings) == key
    assert agent_key(ServeSettings(data=tmp_path / "other")) != key


def test_relays_that_start_together_use_one_key(tmp_path: Path) -> None:
    """Nobody overwrites the key that another has just made."""
    settings = ServeSettings(data=tmp_path)
    for _ in range(20):
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _: _key_or_none(settings), range(4)))
        kept = settings.key_file.read_text().strip()
        assert {key for key in results if key} == {kept}
        settings.key_file.unlink()


def _key_or_none(settings: ServeSettings) -> str | None:
    try:
        return agent_key(settings)
    except StartError:
        return None


def test_a_key_file_is_read(tmp_path: Path) -> None:
    """Without the white space around it; no key is made in its place."""
    file = tmp_path / "secret"
    file.write_text("  from-a-file\n")
    assert agent_key(ServeSettings(data=tmp_path / "data", agent_key_file=file)) == "from-a-file"
    file.unlink()
    with pytest.raises(StartError, match="secret cannot be used"):
        agent_key(ServeSettings(data=tmp_path / "data", agent_key_file=file))
    assert not file.exists()


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe\xff"])
def test_a_key_that_is_none_is_said(tmp_path: Path, content: bytes) -> None:
    """One sentence with the file and the next step; nothing of its content."""
    settings = ServeSettings(data=tmp_path)
    settings.key_file.write_bytes(content)
    with pytest.raises(StartError) as caught:
        agent_key(settings)
    assert str(settings.key_file) in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A file where the directory should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="--data"):
        agent_key(ServeSettings(data=tmp_path / "file"))


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root reads everything")
def test_a_key_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    """With the system's reason."""
    settings = ServeSettings(data=tmp_path)
    agent_key(settings)
    settings.key_file.chmod(0)
    with pytest.raises(StartError, match="denied"):
        agent_key(settings)
