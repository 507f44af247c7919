"""Every test's data directory holds a migrated database, so that a start takes no step of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.databases import postgres, postgres_template, postgres_url, sqlite_template

__all__ = ["postgres", "postgres_template", "postgres_url", "sqlite_template"]


@pytest.fixture(autouse=True)
def migrated(tmp_path: Path, sqlite_template: Path) -> None:
    """The directory is the test's own `tmp_path`."""
    shutil.copyfile(sqlite_template, tmp_path / "relay.db")
