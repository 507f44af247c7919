"""What deploy/ asks of Prometheus and Grafana: metrics and pages that exist, in files that those two can read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.metricspage import rows

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS, GRAFANA = ROOT / "deploy" / "prometheus", ROOT / "deploy" / "grafana"
# A metric, and the labels by which it is chosen.
SELECTOR = re.compile(r"\b((?:relay|process|up)\w*)(?:\{([^}]*)\})?")
EVERYWHERE = {"job", "instance"}
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    told: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "relay.json").read_text(encoding="utf-8"))
    return told


def panels() -> list[dict[str, Any]]:
    """Those that ask something."""
    return [one for one in dashboard()["panels"] if one["type"] != "row"]


def questions() -> Iterator[tuple[str, str]]:
    """Whatever asks Prometheus, and what."""
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_alerts_and_dashboard_ask_for_metrics_that_exist() -> None:
    """By names and labels of docs/metrics.md."""
    labels = {name: EVERYWHERE | set(row.labels) for row in rows() for name in row.samples} | {"up": EVERYWHERE}
    asked = 0
    for where, expr in questions():
        for name, chosen in SELECTOR.findall(expr):
            asked += 1
            assert name in labels, f"{where}: {name}"
            by = set(re.findall(r"(\w+)\s*(?:=|!)", chosen)) - ({"le"} if name.endswith("_bucket") else set())
            assert by <= labels[name], f"{where}: {name} has no {by - labels[name]}"
    assert asked > 60


def test_what_is_measured_is_shown_or_watched() -> None:
    """Every metric of the relay's but for a few that are for looking up stands on the dashboard or in an alert."""
    asked = {name for _, expr in questions() for name, _ in SELECTOR.findall(expr)}
    for_looking_up = re.compile(
        r"relay_(agent_)?(build_info|tasks|ready|tunnels|names_reserved|connections_open|requests_broken_off_total)"
        r"|relay_tunnel_|relay_credit_|relay_agent_|process_"
    )
    left = [row.name for row in rows() if not asked & set(row.samples) and not for_looking_up.match(row.name)]
    assert left == ["relay_links_opened_total"]


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_where_to_look(rule: dict[str, Any]) -> None:
    """A sentence each; pages with their sections, and panels of the dashboard, are there."""
    assert rule["labels"]["severity"] in ("critical", "warning")
    summary, description = rule["annotations"]["summary"], " ".join(rule["annotations"]["description"].split())
    assert summary.endswith(".")
    assert description.endswith(".")
    for page, section in re.findall(r'docs/([\w.-]+\.md)(?:, "([^"]+)")?', description):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        assert not section or re.search(rf"^#+ {re.escape(section)}$", text, re.MULTILINE), (page, section)
    titles = {panel["title"] for panel in panels()}
    assert set(re.findall(r'panel "([^"]+)"', description)) <= titles


def test_alerts_have_names_of_their_own() -> None:
    """No rule hides another."""
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names)) > 20


def test_the_dashboard_is_of_the_form_that_grafana_provisions() -> None:
    """Panels with an id, a place of their own, a question, and the data source that is chosen above them."""
    told = dashboard()
    assert (told["uid"], told["id"]) == ("relay", None)
    assert told["schemaVersion"] >= 39
    (variable,) = told["templating"]["list"]
    source = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"][0]
    assert (variable["name"], variable["type"]) == ("datasource", "datasource")
    assert (variable["query"], variable["current"]["value"]) == (source["type"], source["uid"])
    taken: set[tuple[int, int]] = set()
    for panel in told["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in told["panels"]}) == len(told["panels"])
    for panel in panels():
        assert panel["type"] in ("stat", "timeseries")
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_the_dashboard_lies_where_grafana_looks_for_it() -> None:
    """The provider's folder is the one that the compose file puts the dashboard into."""
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "relay.yml").read_text())["providers"]
    compose = (ROOT / "docker-compose.yaml").read_text(encoding="utf-8")
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in compose
    assert "./deploy/grafana/provisioning:/etc/grafana/provisioning:ro" in compose


def test_prometheus_scrapes_what_the_alerts_watch() -> None:
    """The jobs that are named in questions are there, and the rules lie where the configuration looks for them."""
    told = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = {one["job_name"] for one in told["scrape_configs"]}
    assert {job for _, expr in questions() for job in re.findall(r'job="(\w+)"', expr)} <= jobs
    assert told["rule_files"] == ["/etc/prometheus/alerts.yml"]
    assert "./deploy/prometheus:/etc/prometheus:ro" in (ROOT / "docker-compose.yaml").read_text(encoding="utf-8")


# ---- by Prometheus itself


def promtool(*arguments: str | Path) -> str:
    argv = ["promtool", *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_prometheus_takes_the_rules_and_the_configuration(tmp_path: Path) -> None:
    """Every expression and template of them."""
    assert "SUCCESS" in promtool("check", "rules", PROMETHEUS / "alerts.yml")
    here = (PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8").replace("/etc/prometheus", str(PROMETHEUS))
    (tmp_path / "prometheus.yml").write_text(here, encoding="utf-8")
    assert "SUCCESS" in promtool("check", "config", tmp_path / "prometheus.yml")


def series(name: str, values: str) -> dict[str, str]:
    return {"series": name, "values": values}


CASES = {
    "RelayRevocationSlow": [
        series('relay_revocation_cut_seconds_count{instance="r"}', "0x10 2x50"),
        series('relay_revocation_cut_seconds_bucket{instance="r",le="2.0"}', "0x10 1x50"),
    ],
    "RelayErrorRatio": [
        series('relay_requests_total{instance="r",class="5xx",error="agent_lost"}', "0+10x60"),
        series('relay_requests_total{instance="r",class="2xx",error=""}', "0+90x60"),
        series('relay_requests_total{instance="q",class="5xx",error="agent_lost"}', "0+1x60"),
        series('relay_requests_total{instance="q",class="2xx",error=""}', "0+90x60"),
    ],
    "RelayAgentsFlap": [
        series('relay_links_reopened_total{instance="r"}', "0+2x60"),
        series('relay_links_live{instance="r"}', "2x60"),
        series('relay_links_reopened_total{instance="q"}', "0+2x60"),
        series('relay_links_live{instance="q"}', "200x60"),
    ],
    "RelayNotReady": [
        series('relay_ready{instance="r"}', "0x60"),
        series('relay_draining{instance="r"}', "0x60"),
        series('relay_ready{instance="q"}', "0x60"),
        series('relay_draining{instance="q"}', "1x60"),
    ],
    "AgentKeyEndsSoon": [
        series('relay_agent_key_expires_seconds{instance="r"}', "7200-60x100"),
        series('relay_agent_key_renewable{instance="r"}', "0x120"),
        series('relay_agent_key_expires_seconds{instance="q"}', "60x120"),
        series('relay_agent_key_renewable{instance="q"}', "1x120"),
    ],
}  # fmt: skip


@needs_promtool
def test_alerts_fire_where_they_should_and_nowhere_else(tmp_path: Path) -> None:
    """Of the two relays or agents of each case the first is in trouble, and the second is not."""
    rules = {rule["alert"]: rule for rule in alerts()}
    tests = []
    for name, given in CASES.items():
        # Without annotations, which hold values.
        expr = f'count by (instance) (ALERTS{{alertname="{name}",alertstate="firing"}})'
        wanted = [{"labels": '{instance="r"}', "value": 1}]
        question = {"expr": expr, "eval_time": "70m" if name == "AgentKeyEndsSoon" else "30m", "exp_samples": wanted}
        tests.append({"interval": "1m", "input_series": given, "promql_expr_test": [question]})
        assert name in rules
    case = {"rule_files": [str(PROMETHEUS / "alerts.yml")], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "case.yml").write_text(yaml.safe_dump(case), encoding="utf-8")
    assert "SUCCESS" in promtool("test", "rules", tmp_path / "case.yml")
