"""What a relay and an agent do not load for months of work without it: memory, and time at each start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from relay.keys.forms import Kind
from tests.cli.keytexts import signed

ROOT = Path(__file__).resolve().parents[2]

# Runs the command line up to where the agent would begin to wait.
AGENT = """
import json, sys
import relay.agent
def run(*_given, **_named):
    import relay.agent.runner
    print(json.dumps(sorted(sys.modules)))
    return 0
relay.agent.run = run
sys.argv = ["relay", "http", "3000", "--quiet", "--json", "--relay", "wss://relay.example.com", "--subdomain", "me"]
from relay.__main__ import main
main()
"""
NOT_BY_AN_AGENT = {
    "alembic", "argon2", "cryptography", "email", "h11", "http.client", "jwt", "prometheus_client", "pydantic",
    "pydantic_core", "relay.cli.client", "relay.cli.keys", "relay.cli.serve", "relay.health", "relay.node",
    "relay.settings", "rich", "sqlalchemy", "starlette", "urllib.request", "uvicorn", "yaml",
}  # fmt: skip

# A relay on a new data directory, until it serves.
RELAY = """
import json, os, sys
from relay.node.serve import Serving
def told(*_given):
    print(json.dumps(sorted(sys.modules)), flush=True)
    os._exit(0)
Serving._report_serving = told
sys.argv = ["relay", "serve", "--json", "--public", "127.0.0.1:0", "--agents", "127.0.0.1:0", "--data", DATA]
from relay.__main__ import main
main()
"""
NOT_BY_A_RELAY = {
    "alembic", "argon2", "asyncpg", "h11", "mako", "prometheus_client", "relay.agent.runner", "relay.cli.client",
    "relay.cli.http", "rich", "sqlalchemy.dialects.postgresql", "sqlalchemy.ext.asyncio", "sqlalchemy.orm", "yaml",
}  # fmt: skip


def loaded(program: str, **more: str) -> set[str]:
    """The modules that it has in the end."""
    kept = {name: one for name, one in os.environ.items() if not name.lower().endswith("_proxy")}
    environment = {**kept, "PYTHONPATH": str(ROOT), **more}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_an_agent_loads_what_it_needs() -> None:
    """With its key given, and no proxy, password, metrics or other parser asked for."""
    found = loaded(AGENT, RELAY_KEY=signed(Kind.CHILD))
    assert {"relay.agent.runner", "picows", "httptools"} <= found
    assert found & NOT_BY_AN_AGENT == set()


def test_a_relay_loads_what_it_needs(tmp_path: Path) -> None:
    """With SQLite, and not scraped: not even to make its database."""
    found = loaded(RELAY.replace("DATA", repr(str(tmp_path / "data"))))
    assert {"relay.node.serve", "uvicorn", "sqlalchemy"} <= found
    assert found & NOT_BY_A_RELAY == set()
