"""The lines that the pages show for Docker Compose, as they stand: first steps, backup, restore, update and back."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose import shown
from tests.compose.engine import Stack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]

# Whoever is asked for certificates of example.com, it is nobody.
NOWHERE = {"RELAY_DOMAIN": "tunnels.example.com", "ACME_CA": "https://127.0.0.1:9/directory"}


def run(stack: Stack, folder: Path, *lines: str) -> str:
    """What the lines print, in a project of its own, with their files in a folder. The last one's output is given."""
    said = ""
    for line in lines:
        words = shlex.split(re.sub(r"^([A-Z_]+=\S+ )+", "", line))
        assert words[:2] == ["docker", "compose"]
        del words[:2]
        way = words[-2] if len(words) > 1 else ""
        file = folder / words[-1]
        if way in ("<", ">"):
            del words[-2:]
        given = file.read_bytes() if way == "<" else None
        if words[0] == "cp":
            words[-1] = str(file)
        out = stack.bytes(*words, given=given, timeout=120)
        if way == ">":
            file.write_bytes(out)
        said = out.decode(errors="replace")
    return said


@pytest.fixture
def fresh() -> Iterator[Stack]:
    with Stack(extra=NOWHERE) as stack:
        yield stack


def projects(stack: Stack) -> list[str]:
    return [one["name"] for one in stack.json("projects", "list")]


def state_of(stack: Stack, key: str) -> str:
    """What the relay says of a child key to who has it."""
    return stack("exec", "-T", "-e", f"RELAY_KEY={key}", "relay", "relay", "whoami")


def test_backup_restore_and_back(fresh: Stack, tmp_path: Path) -> None:
    """Keys and names are there in a fresh project, in one that had others, and after a downgrade."""
    with Stack(extra=NOWHERE) as old:
        old.up()
        assert "healthy" in run(old, tmp_path, shown.UP, shown.LOOK[0])
        assert "Master key: mtk_master_" in run(old, tmp_path, shown.LOOK[1])
        run(old, tmp_path, shown.LOOK[2])
        key = old.relay("keys", "mint", "--project", "mcp-server", "--quiet").strip()
        run(old, tmp_path, *shown.BACKUP)

    run(fresh, tmp_path, *shown.RESTORE)
    fresh.up()
    assert "mcp-server" in projects(fresh)
    assert "valid" in state_of(fresh, key)
    fresh.relay("projects", "create", "after-the-backup", "--quiet")

    run(fresh, tmp_path, *shown.EMPTY, *shown.RESTORE)
    fresh.up()
    assert "mcp-server" in projects(fresh)
    assert "after-the-backup" not in projects(fresh)

    run(fresh, tmp_path, *shown.UPDATE, shown.EMPTY[0], shown.BACK)
    fresh.up()
    assert "which is this relay's" in run(fresh, tmp_path, shown.UPDATE[1])
    assert "valid" in state_of(fresh, key)


def test_the_authority_of_caddy(tmp_path: Path) -> None:
    """Its certificate is where the page says."""
    with Stack() as stack:
        stack.up()
        run(stack, tmp_path, shown.ROOT_CERTIFICATE)
    assert "BEGIN CERTIFICATE" in (tmp_path / "caddy-root.crt").read_text(encoding="ascii")
