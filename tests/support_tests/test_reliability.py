"""The rows of the reliability tests: written by each process, joined at the end, and a miss fails its test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.child import ROOT
from tests.support.reliability import Record, Row, rows_of, shown, spread, table

SUITE = """
import pytest

@pytest.mark.parametrize("number", range(4))
def test_held(record, number):
    record(name=f"held {number}", asked="1 s", seen="0.5 s", ok=True, counts={"max_s": 0.5}, seed=number)

def test_missed(record):
    record(name="missed", asked="1 s", seen="2 s", ok=False)

def test_broke(record):
    assert "what was to be measured" == "never came"
"""


@pytest.mark.parametrize("chaos", [False, True])
def test_rows_of_all_processes_are_joined(tmp_path: Path, chaos: bool) -> None:
    """Two processes write, the table has every row; a file only when the long versions were asked for."""
    (tmp_path / "conftest.py").write_text("pytest_plugins = ('tests.support.reliability',)\n")
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    environment = {name: value for name, value in os.environ.items() if name != "RELAY_CHAOS"}
    environment |= {"PYTHONPATH": str(ROOT)} | ({"RELAY_CHAOS": "1"} if chaos else {})
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2" if chaos else "0"]
    argv.append(f"--basetemp={tmp_path / 'base'}")
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "2 failed, 4 passed" in done.stdout, done.stdout + done.stderr
    assert "4 of 6 held" in done.stdout
    assert "MISS  missed" in done.stdout
    assert "MISS  test_broke" in done.stdout
    report = tmp_path / "reliability.json"
    assert report.exists() is chaos
    if chaos:
        document = json.loads(report.read_text())
        assert (document["held"], document["missed"]) == (4, 2)
        assert {row["seed"] for row in document["rows"] if row["ok"]} == {0, 1, 2, 3}


def test_a_row_that_does_not_hold_fails_its_test(tmp_path: Path) -> None:
    """It is written all the same, and says what was asked and seen."""
    record = Record("a test", tmp_path / "reliability.jsonl", [])
    record(name="a", asked="x", seen="y", ok=True, counts={"n": 1}, seed=7)
    with pytest.raises(AssertionError, match=r"b \(seed 8\): asked: x; seen: z"):
        record(name="b", asked="x", seen="z", ok=False, seed=8)
    assert [(row.name, row.ok, row.seed) for row in rows_of(tmp_path)] == [("a", True, 7), ("b", False, 8)]


def test_a_table_shows_misses() -> None:
    """And every figure."""
    shown = table([Row("one", "≤ 1 s", "0.5 s", ok=True, counts={"max_s": 0.5}), Row("two", "none", "3", ok=False)])
    assert shown.splitlines()[0] == "ok    one"
    assert "max_s 0.5" in shown
    assert shown.splitlines()[-1] == "1 of 2 held"


def test_figures_of_samples() -> None:
    """Of the numbers 1 to 100 the median lies between 50 and 51, and 99 of 100 are no greater than 99."""
    assert spread(range(1, 101)) == {"samples": 100, "p50_s": 50.5, "p99_s": 99, "max_s": 100}
    assert spread([]) == {"samples": 0}
    assert shown([0.25], "ms") == "samples 1, p50 0.25, p99 0.25, max 0.25"
