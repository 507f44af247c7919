"""The compose files, read and not run: services are hardened and bounded, settings in them are those that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay.settings import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
FILES = ("docker-compose.yaml", "deploy/agent/compose.yaml")
# Of an agent and of every command (docs/agent.md, docs/commands.md).
OF_AGENTS = {"RELAY_URL", "RELAY_METRICS"}
# They end by themselves.
ONE_SHOTS = {"database-secret", "database-upgrade"}
# An example, in the place of somebody's own services.
EXAMPLES = {"web"}


def services(file: str) -> dict[str, dict[str, Any]]:
    found = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))["services"]
    assert isinstance(found, dict)
    return found


SERVICES = [pytest.param(file, name, id=name) for file in FILES for name in services(file)]


@pytest.mark.parametrize(("file", "name"), SERVICES)
def test_every_service_is_hardened(file: str, name: str) -> None:
    """No capability that was not asked for, no new privileges, no root to write to."""
    one = services(file)[name]
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one["read_only"] is True
    assert one["restart"] == ("no" if name in ONE_SHOTS else "unless-stopped")


@pytest.mark.parametrize(("file", "name"), [one for one in SERVICES if one.id not in EXAMPLES])
def test_every_service_is_bounded(file: str, name: str) -> None:
    """Memory, processes, descriptors and logs have an end; who serves is looked after."""
    one = services(file)[name]
    assert one["mem_limit"]
    assert one["pids_limit"] > 0
    assert one["ulimits"]["nofile"]
    assert one["logging"]["options"] == {"max-size": "10m", "max-file": "5"}
    assert ("healthcheck" in one) == (name not in ONE_SHOTS)


@pytest.mark.parametrize(("file", "name"), SERVICES)
def test_only_caddy_is_open_to_the_world(file: str, name: str) -> None:
    """Every other port is on the loopback of the machine."""
    for port in services(file)[name].get("ports", ()):
        assert name == "caddy" or port.startswith("127.0.0.1:")


@pytest.mark.parametrize(("file", "name"), SERVICES)
def test_settings_have_their_names(file: str, name: str) -> None:
    """A variable of ours that nobody reads would be a setting that is silently not there."""
    known = {one.environment for one in SETTINGS} | OF_AGENTS
    ours = {each for each in services(file)[name].get("environment", {}) if each.startswith("RELAY_")}
    assert ours - known <= ({"RELAY_DOMAIN"} if name == "caddy" else set())


def test_caddy_alone_is_trusted() -> None:
    """The address that counts as the proxy's is the one that Caddy has, and nobody else's."""
    found = services(FILES[0])
    address = found["caddy"]["networks"]["front"]["ipv4_address"]
    assert found["relay"]["environment"]["RELAY_TRUSTED_PROXIES"] == f"{address}/32"
    assert not any("ipv4_address" in str(one) for name, one in found.items() if name != "caddy")


def test_the_relay_may_take_its_time_to_stop() -> None:
    """The engine waits longer than running requests may take."""
    (grace,) = (float(one.default) for one in SETTINGS if one.name == "grace")
    assert int(services(FILES[0])["relay"]["stop_grace_period"].removesuffix("s")) > grace


def test_caddy_reads_the_variables_that_it_is_given() -> None:
    """Each variable of the Caddyfiles is set for the container, and the other way round."""
    folder = ROOT / "deploy" / "caddy"
    given = set(services(FILES[0])["caddy"]["environment"])
    extra = set(
        yaml.safe_load((folder / "wildcard.yaml").read_text(encoding="utf-8"))["services"]["caddy"]["environment"]
    )
    read = {name: set(re.findall(r"\{\$(\w+)\}", (folder / name).read_text())) for name in ("Caddyfile", "routes")}
    assert read["Caddyfile"] | read["routes"] == given
    assert set(re.findall(r"\{\$(\w+)\}", (folder / "Caddyfile.wildcard").read_text())) - given == extra
