"""What the reliability tests asked for and what they saw: one row a promise, joined at the end of the session.

    def test_x(record: Record) -> None:
        record(name="links: cut and back", asked="served in 0.3 s", seen="p99 0.21 s", ok=True, counts={…}, seed=SEED)

A row that is not `ok` fails its test, and a test that failed before it had a row gets one that says so. Each process
of pytest-xdist appends to a file of JSON lines of its own; the session's end joins them into a table, and under
RELAY_CHAOS=1 also into `reliability.json` in the current directory. A plugin of pytest, loaded by tests/conftest.py.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.longer import CHAOS

LINES = "reliability.jsonl"
REPORT = "reliability.json"
Number = int | float
_FAILED = pytest.StashKey[bool]()
_NAMED = pytest.StashKey[list["Row"]]()


@dataclass(frozen=True, slots=True)
class Row:
    """One promise. `counts` are figures by name, their units in the name; `seed` makes the same run again."""

    name: str
    asked: str
    seen: str
    ok: bool
    counts: Mapping[str, Number] = field(default_factory=dict)
    seed: int | None = None
    test: str = ""
    at: str = ""
    """When it was seen (UTC)."""


@dataclass(frozen=True, slots=True)
class Record:
    """What the fixture gives: call it once for each promise of the test."""

    test: str
    lines: Path
    rows: list[Row]

    def __call__(
        self,
        *,
        name: str,
        asked: str,
        seen: str,
        ok: bool,
        counts: Mapping[str, Number] | None = None,
        seed: int | None = None,
    ) -> None:
        """Write the row; raises AssertionError for one that is not `ok`."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        row = Row(name, asked, seen, ok, dict(counts or {}), seed, self.test, at)
        self.rows.append(row)
        with self.lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        assert ok, f"{name} (seed {seed}): asked: {asked}; seen: {seen}; {row.counts}"


@pytest.fixture
def record(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Record]:
    """See the first lines."""
    kept = Record(request.node.nodeid, tmp_path_factory.getbasetemp() / LINES, [])
    yield kept
    if request.node.stash.get(_FAILED, False) and all(row.ok for row in kept.rows):
        try:
            kept(name=request.node.name, asked="the test passes", seen="it failed before it had measured", ok=False)
        except AssertionError:
            pass  # the test has failed already, with its own reason


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Lets the fixture know, at its end, whether its test failed."""
    report = cast(pytest.TestReport, (yield))
    if report.failed and report.when != "teardown":
        item.stash[_FAILED] = True
    return report  # type: ignore[return-value]  # what a wrapper returns is the hook's result


def rows_of(folder: Path) -> list[Row]:
    """The rows of all processes of a session, from its temporary directory; in the order of their names."""
    files = [file for file in (folder / LINES, *folder.glob(f"popen-*/{LINES}")) if file.exists()]
    rows = [Row(**json.loads(line)) for file in files for line in file.read_text("utf-8").splitlines()]
    return sorted(rows, key=lambda row: (row.test, row.at, row.name))


def spread(samples: Sequence[float], unit: str = "s") -> dict[str, Number]:
    """Count, p50, p99 and greatest of some samples, named for `counts`."""
    ordered = sorted(samples)
    if not ordered:
        return {"samples": 0}
    p99 = ordered[math.ceil(len(ordered) * 0.99) - 1]
    named = {f"p50_{unit}": statistics.median(ordered), f"p99_{unit}": p99, f"max_{unit}": ordered[-1]}
    return {"samples": len(ordered)} | {name: round(value, 4) for name, value in named.items()}


def shown(samples: Sequence[float], unit: str = "s") -> str:
    """The same as words."""
    return ", ".join(f"{name.removesuffix(f'_{unit}')} {value:g}" for name, value in spread(samples, unit).items())


def table(rows: Sequence[Row], width: int = 118) -> str:
    """All rows for people: what was asked, what was seen, the misses marked."""
    lines = []
    for row in rows:
        seed = "" if row.seed is None else f" (seed {row.seed})"
        lines.append(f"{'ok  ' if row.ok else 'MISS'}  {row.name}{seed}")
        figures = ", ".join(f"{name} {value:g}" for name, value in row.counts.items())
        for title, text in (("asked", row.asked), ("seen", row.seen), ("counts", figures)):
            if text:
                lines += textwrap.wrap(text, width, initial_indent=f"      {title:7}", subsequent_indent=" " * 13)
    held = sum(row.ok for row in rows)
    return "\n".join([*lines, f"{held} of {len(rows)} held"])


def write_report(rows: Sequence[Row], path: Path) -> None:
    """One JSON document: the rows, how many held, and how the machine is."""
    held = sum(row.ok for row in rows)
    document: dict[str, Any] = {"cores": os.cpu_count(), "held": held, "missed": len(rows) - held}
    path.write_text(json.dumps(document | {"rows": [asdict(row) for row in rows]}, indent=1) + "\n", encoding="utf-8")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In the process that the others report to: join what was written."""
    config = session.config
    if hasattr(config, "workerinput"):
        return
    rows = config.stash[_NAMED] = rows_of(config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
    if rows and CHAOS:
        write_report(rows, Path.cwd() / REPORT)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table, and where the report is."""
    rows = config.stash.get(_NAMED, [])
    if rows:
        terminalreporter.section("reliability")
        terminalreporter.write_line(table(rows))
        if CHAOS:
            terminalreporter.write_line(f"written to {REPORT}")
