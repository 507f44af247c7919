"""The profile monitoring: each metric that fired arrives in Prometheus; the dashboard's queries and rules are good."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.compose.conftest import Start, Told
from tests.compose.engine import ROOT, Stack
from tests.compose.images import OPTIONAL, foreign
from tests.compose.outside import Outside
from tests.support.local import LocalProcess

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
SCRAPED_WITHIN = 60.0
JOBS = {"relay", "agent", "prometheus"}
# What Grafana puts in the place of its variables.
VARIABLES = {"__rate_interval": "1m", "__interval": "15s", "__range": "1h", "__range_s": "3600"}


def ask(stack: Stack, path: str, **query: str) -> Any:
    """The `data` of an answer of Prometheus' API."""
    url = f"http://127.0.0.1:{stack.prometheus}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=20) as answer:
        said = json.loads(answer.read())
    assert said["status"] == "success", said
    return said["data"]


def families(text: str) -> set[str]:
    """The names that an exposition has samples of."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return {re.split(r"[{ ]", line, maxsplit=1)[0] for line in lines}


def documented() -> set[str]:
    """The names in docs/metrics.md."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `(relay_\w+)`", page, re.MULTILINE))


def family_of(sample: str) -> str:
    """The metric that a sample is of: a histogram has several."""
    return re.sub(r"_(bucket|sum|count)$", "", sample)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def outside(started: Start) -> Outside:
    """A stack with the demo, after some traffic: answers of all kinds, and a key that was revoked."""
    found = started(Stack(profiles=["monitoring", "demo"]), "caddy", "demo-server", "demo-agent", "prometheus")
    key_id, key = found.key("--subdomain", "seen")
    async with LocalProcess() as local, found.agent(local.port, "seen", key):
        for path in ("/echo", "/status/404", "/status/500", "/bytes/100000", "/sse?count=3"):
            await found.visit("seen", path)
        await found.visit("echo", "/mcp")
        await asyncio.to_thread(found.stack.relay, "keys", "revoke", key_id)
        assert await found.visit("seen") == 503
    return found


async def scraped(stack: Stack) -> None:
    """Waits until every job was scraped after the traffic."""
    began = time.time()
    end = time.monotonic() + SCRAPED_WITHIN
    while True:
        found = ask(stack, "targets", state="active")["activeTargets"]
        jobs = {one["labels"]["job"] for one in found if one["health"] == "up"}
        last = min((datetime.fromisoformat(one["lastScrape"][:19] + "+00:00").timestamp() for one in found), default=0)
        if jobs == JOBS and last > began:
            return
        assert time.monotonic() < end, found
        await asyncio.sleep(0.5)


@pytest.mark.asyncio(loop_scope="module")
async def test_every_metric_that_fired_is_there(outside: Outside, told: Told) -> None:
    """What the relay and the agent expose is documented, and Prometheus has all of it."""
    stack = outside.stack
    exposed = families((await outside.curl(f"http://127.0.0.1:{stack.internal}/metrics")).decode())
    program = "import urllib.request as u; print(u.urlopen('http://demo-agent:9091/metrics').read().decode())"
    exposed |= families(stack("exec", "-T", "relay", "python", "-c", program))
    ours = {one for one in exposed if one.startswith("relay_")}
    await scraped(stack)
    stored = set(ask(stack, "label/__name__/values"))
    assert ours
    assert ours - stored == set()
    known = documented()
    fired = {one if one in known else family_of(one) for one in ours}
    assert {one for one in fired - known if not one.endswith("_created")} == set()
    silent = sorted(known - fired)
    told(f"metrics: {len(known & fired)} of {len(known)} documented ones fired and are in Prometheus; silent: {silent}")
    assert len(fired & known) > len(known) * 0.8


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.stem)
def test_each_query_of_a_dashboard_is_answered(outside: Outside, dashboard: Path, told: Told) -> None:
    """Prometheus understands it; most have something to show by now."""
    queries = list(dict.fromkeys(expressions(json.loads(dashboard.read_text(encoding="utf-8")))))
    assert queries
    empty = [one for one in queries if not ask(outside.stack, "query", query=filled(one))["result"]]
    told(f"dashboard {dashboard.stem}: {len(queries)} queries, {len(queries) - len(empty)} with something to show")
    assert len(empty) < len(queries) / 2, empty


def expressions(part: Any) -> Iterator[str]:
    """All `expr` of a dashboard, wherever they stand."""
    if isinstance(part, dict):
        if isinstance(part.get("expr"), str):
            yield part["expr"]
        for one in part.values():
            yield from expressions(one)
    elif isinstance(part, list):
        for one in part:
            yield from expressions(one)


def filled(query: str) -> str:
    """The query with values for Grafana's variables; a variable of the dashboard itself is anything."""
    return re.sub(r"\$\{?(\w+)(?::\w+)?\}?", lambda found: VARIABLES.get(found[1], ".*"), query)


def test_the_rules_and_the_configuration_are_good(outside: Outside) -> None:
    """By promtool, and every rule is loaded without an error and would be heard of."""
    stack = outside.stack
    assert "SUCCESS" in stack("exec", "-T", "prometheus", "promtool", "check", "rules", "/etc/prometheus/alerts.yml")
    assert "SUCCESS" in stack(
        "exec", "-T", "prometheus", "promtool", "check", "config", "/etc/prometheus/prometheus.yml"
    )
    rules = [rule for group in ask(stack, "rules")["groups"] for rule in group["rules"]]
    assert rules
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}  # unknown: not evaluated yet


def test_grafana_shows_the_dashboard(outside: Outside) -> None:
    """Provisioned, and without an account. Only where the image can be had."""
    image = next(one for one in foreign() if one.startswith(OPTIONAL))
    here = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False)
    if here.returncode and subprocess.run(["docker", "pull", "-q", image], capture_output=True, check=False).returncode:
        pytest.skip(f"{image} is not here and cannot be pulled")
    outside.stack.up("grafana")
    port = outside.stack.env["GRAFANA_PORT"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/search?type=dash-db", timeout=20) as answer:
        assert len(json.loads(answer.read())) == len(DASHBOARDS)
