"""What is published speaks of the product only: no path of somebody's machine, no package index by name."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Put together from pieces, so that this room does not find itself.
MACHINE_PATHS = re.compile("|".join(rf"(?<![\w.~-])/{place}/" for place in ("wor" + "k", "roo" + "t", "tmp/la" + "b")))
PACKAGE_INDEXES = re.compile("|".join(rf"{name}\.org" for name in ("py" + "pi", "python" + "hosted", "npm" + "js")))
LOOK_AWAY = {".venv", ".hypothesis", ".fuzz", ".venvs", ".git", "node_modules", "__pycache__", "build", "dist"}


def published() -> Iterator[tuple[str, str]]:
    """Name and text of every file that is, or is about to be, under version control (all files without git)."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    if listing.returncode == 0 and (ROOT / ".git").exists():
        names = [name.decode() for name in listing.stdout.split(b"\0") if name]
    else:
        every = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
        names = [str(path) for path in every if not any(p in LOOK_AWAY or p.endswith("_cache") for p in path.parts)]
    for name in sorted(set(names)):
        try:
            yield name, (ROOT / name).read_text(encoding="utf-8")
        except (FileNotFoundError, UnicodeDecodeError):
            continue  # deleted but not yet recorded, or a binary vector


def found(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in published()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_files_are_read() -> None:
    """The search below looks at real files: this one and the README are among them."""
    names = {name for name, _ in published()}
    assert {"README.md", "tests/house/test_language.py"} <= names


def test_no_machine_path() -> None:
    """No file names a directory that exists on one machine only."""
    assert found(MACHINE_PATHS) == []


def test_no_package_index() -> None:
    """No file names a package index: which one is used is the reader's own setting."""
    assert found(PACKAGE_INDEXES) == []
