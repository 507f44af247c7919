"""Figures, verdicts, tables and the page: what the benchmark says about a run is what was measured in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import page, plot, table, targets
from bench.judge import Target, against_nginx, between, peak
from bench.results import Results, machine
from bench.systems import REFERENCES, RELAY


def run_of(**rates: list[float]) -> Results:
    """A run that measured small-32 with these rates."""
    results = Results(True, "2026-01-02 03:04 UTC", {"cores": "2"}, {name: f"about {name}" for name in rates})
    for name, values in rates.items():
        for value in values:
            results.add("small-32", name, {"rate": value, "relay_cpu": 0.02})
    return results


SHARE = Target("share", against_nginx("small-32", "rate"), 0.55, 0.75, at_least=True)


def test_a_figure_is_the_median_with_its_spread() -> None:
    """Three rounds give the middle value, the least and the most; what was not measured gives nothing."""
    figure = run_of(relay=[30.0, 10.0, 20.0]).figure("small-32", "relay", "rate")
    assert figure is not None
    assert (figure.median, figure.least, figure.most, figure.count) == (20.0, 10.0, 30.0, 3)
    assert run_of(relay=[1.0]).figure("small-32", "nginx", "rate") is None
    assert run_of(relay=[1.0]).figure("small-1", "relay", "rate") is None


@pytest.mark.parametrize(
    ("relay", "value", "verdict"),
    [(40.0, 0.4, "missed"), (55.0, 0.55, "met"), (74.4, 0.74, "met"), (74.6, 0.75, "wanted"), (90.0, 0.9, "wanted")],
)
def test_a_share_is_judged_from_below_as_it_is_shown(relay: float, value: float, verdict: str) -> None:
    """Needed and wanted are limits from below; a figure is rounded before it is judged."""
    run = run_of(relay=[relay], nginx=[100.0])
    assert (SHARE.value(run), SHARE.verdict(run)) == (value, verdict)


@pytest.mark.parametrize(("relay", "verdict"), [(2.0, "missed"), (1.5, "met"), (1.0, "wanted")])
def test_a_cost_is_judged_from_above(relay: float, verdict: str) -> None:
    """Of a cost, less is better."""
    cost = Target("cost", against_nginx("small-32", "rate"), 1.5, 1.0)
    assert cost.verdict(run_of(relay=[relay], nginx=[1.0])) == verdict


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    """Without the reference there is no ratio, and no verdict."""
    assert SHARE.value(run_of(relay=[100.0])) is None
    assert SHARE.verdict(run_of(relay=[100.0])) == "not measured"


def test_any_system_has_the_same_figure() -> None:
    """What the relay is judged by can be said of those beside it."""
    assert SHARE.value(run_of(relay=[50.0], rathole=[70.0], nginx=[100.0]), "rathole") == 0.7
    bulk = Results()
    for name, rate in (("direct", 100.0), ("relay", 95.0), ("frp", 90.0)):
        bulk.add("far-small-32", name, {"rate": rate})
    of_direct = between(("far-small-32", "rate"), ("far-small-32", "rate"), "direct")
    assert (of_direct(bulk, "relay"), of_direct(bulk, "frp")) == (0.95, 0.9)


def test_a_peak_is_the_most_of_all_rounds_and_workloads() -> None:
    """Memory is judged by its worst moment."""
    results = Results()
    for workload, value in (("down-1", 3.0), ("down-1", 7.0), ("up-1", 5.0)):
        results.add(workload, "relay", {"relay_peak": value * 2**20})
    assert peak("relay_peak", ("down-1", "up-1"))(results, "relay") == 7.0
    assert peak("agent_peak", ("down-1", "up-1"))(results, "relay") is None


def test_every_target_judges_a_workload_and_key_that_the_tables_show() -> None:
    """A target cannot wait for ever for a figure that nobody measures: with every figure there, each one is judged."""
    results = Results(systems={system.name: system.about for system in (*REFERENCES, RELAY)})
    for offset, name in enumerate(results.systems):
        for _title, rows in table.SECTIONS:
            for row in rows:
                samples = results.samples.setdefault(row.workload, {}).setdefault(name, [{}])
                # direct, nginx, asgi, relay: delays grow, and so the rates of one connection must fall
                samples[0][row.key] = 10.0 - offset if row.key == "rate" else 1.0 + offset
    assert [target.what for target in targets.TARGETS if target.value(results) is None] == []
    assert [target.what for target in targets.TARGETS if target.why is None or "–" in target.why(results)] == []


def test_a_run_survives_its_json() -> None:
    """What is written is what is read."""
    results = run_of(relay=[1.0, 2.0], nginx=[3.0])
    assert Results.from_json(results.to_json()) == results


def test_a_cell_shows_the_spread_of_rounds_and_nothing_of_one() -> None:
    """`median (min–max)` over rounds, the number alone for one round, a dash for none."""
    row = table.Row("small-32", "rate", "requests/s", digits=4)
    assert table.cell(run_of(relay=[1234.5, 900.0, 20000.0]).figure("small-32", "relay", "rate"), row) == (
        "1,234 (900.0–20,000)"
    )
    assert table.cell(run_of(relay=[0.01234]).figure("small-32", "relay", "rate"), row) == "0.012"
    assert table.cell(None, row) == "–"


def test_the_page_tells_machine_systems_figures_and_losses() -> None:
    """Everything on the page comes from the run: its numbers, its notes, and why a target was missed."""
    results = run_of(direct=[500.0], nginx=[100.0], relay=[40.0])
    results.notes.append("something to know")
    text = page.render(results)
    assert "cores: 2" in text
    assert "2026-01-02" in text
    assert re.search(r"requests/s \| 500\.0+ \| 100\.0+ \| 40\.0+ \|", text)
    assert "| 0.40 | **missed** | 1.00 |" in text
    lost = text.split("## Where we lose, and why")[1]
    assert "0.40 (missed)" in lost
    assert "20 in nginx" in lost
    assert "No other tunnel that was measured is ahead" in lost
    assert "- something to know" in lost
    assert all(f"- **{name}**: about {name}." in text for name in results.systems)


def test_the_page_names_each_tunnel_that_is_ahead_and_what_it_spares() -> None:
    """A rival's better figure stands among our losses with ours beside it; a worse one does not."""
    results = run_of(nginx=[100.0], relay=[60.0], rathole=[70.0], frp=[10.0])
    lost = page.render(results).split("## Where we lose, and why")[1]
    [line] = [line for line in lost.splitlines() if " is ahead in " in line]
    assert line.startswith("- **rathole** is ahead in 1 of 2: small GET, 32 connections")
    assert "(0.70 against 0.60)" in line
    assert "it copies the bytes of a TCP port" in line


def test_the_published_page_and_picture_are_generated_from_the_published_run() -> None:
    """docs/performance.md holds no number that was typed: made again from its data it is the same, picture too."""
    if not page.DATA.exists():
        assert not page.PAGE.exists()
        return
    results = Results.from_json(page.DATA.read_text(encoding="utf-8"))
    assert page.PAGE.read_text(encoding="utf-8") == page.render(results)
    assert plot.digest(results).encode() in page.PLOT.read_bytes()


def test_publishing_writes_page_data_and_picture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The three files belong to one run, and the page made again from another run's file shows that one."""
    pytest.importorskip("matplotlib", reason="the extra `bench` is not installed")
    for name in ("PAGE", "DATA", "PLOT"):
        monkeypatch.setattr(page, name, tmp_path / f"{name}.png")  # matplotlib goes by the ending
    first, second = run_of(nginx=[100.0], relay=[40.0]), run_of(nginx=[100.0], relay=[90.0])
    page.publish(first)
    (tmp_path / "second.json").write_text(second.to_json(), encoding="utf-8")
    page.publish_again(tmp_path / "second.json")
    assert (tmp_path / "PAGE.png").read_text(encoding="utf-8") == page.render(second) != page.render(first)
    assert Results.from_json((tmp_path / "DATA.png").read_text(encoding="utf-8")) == second
    assert plot.digest(second).encode() in (tmp_path / "PLOT.png").read_bytes()


def test_the_machine_is_described_without_its_name() -> None:
    """Neither a host name nor a path stands among the facts of a machine."""
    facts = machine()
    assert facts["cores"].isdigit()
    assert int(facts["cores"]) >= 1
    assert not [value for value in facts.values() if "/" in value.replace("w/", "") and Path(value).exists()]
    assert "node" not in facts
    assert re.fullmatch(r"3\.\S+ \(configured with.* --with-lto; .* takes \d+ ns\)", facts["Python"])
