"""`make test-compose` on a machine that lacks what it needs: it says what is missing, and that is no success."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the script is bash's")


def run(path: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """The script with the commands of one folder, and those of the system that it needs to begin."""
    for command in ("bash", "dirname", "env"):
        (path / command).symlink_to(str(shutil.which(command)))
    environment = {"PATH": str(path), "HOME": os.devnull, **extra}
    script = str(ROOT / "scripts" / "test-compose")
    return subprocess.run([script], env=environment, capture_output=True, text=True, timeout=60, check=False)


def stand_in(path: Path, text: str) -> None:
    """A command `docker` that does so."""
    file = path / "docker"
    file.write_text(f"#!/bin/bash\n{text}\n")
    file.chmod(0o755)


def test_without_docker(tmp_path: Path) -> None:
    """The command itself is missing."""
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "docker was not found: install Docker Engine" in done.stderr


def test_without_an_engine(tmp_path: Path) -> None:
    """The command is there, and nothing answers it."""
    stand_in(tmp_path, "exit 1")
    done = run(tmp_path)
    assert done.returncode == 1
    assert "no Docker engine answers: start it" in done.stderr


def test_without_compose(tmp_path: Path) -> None:
    """An engine without the plugin."""
    stand_in(tmp_path, "[ $1 = info ]")
    done = run(tmp_path)
    assert done.returncode == 1
    assert "the plugin compose was not found: install docker-compose-plugin" in done.stderr


def test_with_an_old_compose(tmp_path: Path) -> None:
    """One that cannot read the file: what it says is passed on."""
    stand_in(tmp_path, '[ "$1" = info ] || [ "$2" = version ] || { echo "env_file is not a string" >&2; exit 15; }')
    done = run(tmp_path)
    assert done.returncode == 1
    assert "2.24 or newer is needed" in done.stderr
