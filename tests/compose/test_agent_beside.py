"""deploy/agent/compose.yaml: an agent among other containers makes them public, by its file and its key."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.conftest import Start
from tests.compose.engine import ROOT, Stack, docker
from tests.compose.outside import Outside

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]
# The relay of this test has no public name, so the agent joins its network and is let speak without TLS there.
OVERRIDE = """
services:
  agent:
    command: [start, --file, /etc/relay/relay.yaml, --key-file, /run/secrets/agent-key, --quiet, --insecure]
    networks: [default, relay]
networks:
  relay: {name: %s_front, external: true}
"""


@pytest.fixture(scope="module")
def outside(started: Start) -> Outside:
    return started(Stack())


@pytest.fixture
def folder(outside: Outside, tmp_path: Path) -> Iterator[Path]:
    """A copy of the folder, with its key, up; ended afterwards."""
    place = tmp_path / "agent"
    shutil.copytree(ROOT / "deploy" / "agent", place)
    key = outside.key("--subdomain", "web", "--subdomain", "later")[1]
    (place / "agent.key").write_bytes(key.read_bytes())
    (place / "agent.key").chmod(0o400)
    os.chown(place / "agent.key", 65532, 65532)
    (place / "override.yaml").write_text(OVERRIDE % outside.stack.name)
    env = outside.stack.env | {"RELAY_URL": "ws://relay:8081"}
    files = ["-f", str(place / "compose.yaml"), "-f", str(place / "override.yaml")]
    words = ["compose", "--env-file", os.devnull, "-p", f"{outside.stack.name}-agent", *files]
    try:
        docker(*words, "up", "-d", "--no-build", "--wait", timeout=120, env=env)
        yield place
    finally:
        docker(*words, "down", "-v", "-t", "2", timeout=60, env=env)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="gives the key to the agent's user, as root")
async def test_a_service_by_its_name(outside: Outside, folder: Path) -> None:
    """Visitors reach it under its public name, and another one as soon as the file has it."""
    assert await outside.visit("web", "/GPL-3") == 200
    relay_yaml = folder / "config" / "relay.yaml"
    relay_yaml.write_text(relay_yaml.read_text() + "  later: http://web:8000\n")
    await outside.recovered("later", "/GPL-3")
    assert await outside.visit("web", "/GPL-3") == 200
