"""Who may import whom: the contracts of pyproject.toml hold, and the command line stays light."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

LOADED_BY_A_COMMAND = """
import sys
import relay.cli
import relay.agent
print(sorted({"starlette", "uvicorn", "sqlalchemy", "relay.node", "relay.edge"} & set(sys.modules)))
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=110, check=False)


def test_the_import_contracts_hold() -> None:
    """Every contract of the house is kept, and as many were checked as are written down."""
    written = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    lint_imports = Path(sys.executable).with_name("lint-imports")
    result = run(str(lint_imports), "--no-cache")
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"Contracts: {len(written)} kept, 0 broken." in result.stdout


def test_commands_and_agent_load_nothing_of_the_server() -> None:
    """Importing the command line and the agent, in an environment that has everything, loads no room of the relay."""
    result = run(sys.executable, "-c", LOADED_BY_A_COMMAND)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"
