"""A run as Markdown tables: a row for each figure, a column for each system. Decides units and digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.results import Figure, Results
from bench.targets import TARGETS

MIB = 2**20
_VERDICTS = {"wanted": "met ●○", "met": "met ●", "missed": "**missed**", "not measured": "not measured"}


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of a workload, shown times `factor` with so many significant digits."""

    workload: str
    key: str
    label: str
    factor: float = 1.0
    digits: int = 3


def _requests() -> list[Row]:
    rows: list[Row] = []
    for name, word in (
        ("small-1", "1 connection"),
        ("small-32", "32 connections"),
        ("small-256", "256 connections"),
        ("varied-32", "32 connections, each request another"),
    ):
        rows += [
            Row(name, "rate", f"small GET, {word}: requests/s", digits=5),
            Row(name, "p50", "… p50, ms", 1e3),
            Row(name, "p99", "… p99, ms", 1e3),
            Row(name, "relay_cpu", "… CPU of the relay per 1,000 requests, ms", 1e3),
            Row(name, "agent_cpu", "… CPU of the agent per 1,000 requests, ms", 1e3),
        ]
    return rows


def _bulk(names: Sequence[tuple[str, str]], key: str = "rate") -> list[Row]:
    rows: list[Row] = []
    for name, word in names:
        rows += [
            Row(name, key, f"{word}: MB/s", 1e-6, 4),
            Row(name, "relay_cpu", "… CPU of the relay per GiB, s", 1.0),
            Row(name, "agent_cpu", "… CPU of the agent per GiB, s", 1.0),
            Row(name, "relay_peak", "… memory of the relay above idle, MiB", 1 / MIB),
            Row(name, "agent_peak", "… memory of the agent above idle, MiB", 1 / MIB),
        ]
    return rows


def _busy() -> list[Row]:
    rows: list[Row] = []
    for name, word in (
        ("small-32", "small GET, 32 connections"),
        ("small-256", "small GET, 256 connections"),
        ("down-1", "one stream down"),
        ("up-1", "one stream up"),
        ("echo", "WebSocket echo"),
    ):
        rows += [
            Row(name, "load_busy", f"{word}: the load maker, cores", 1.0, 2),
            Row(name, "origin_busy", "… the origin, cores", 1.0, 2),
        ]
    return rows


SECTIONS: tuple[tuple[str, tuple[Row, ...]], ...] = (
    ("Small requests", tuple(_requests())),
    (
        "Bulk",
        tuple(
            _bulk(
                (
                    ("down-1", "one stream down"),
                    ("up-1", "one stream up"),
                    ("down-8", "8 streams down"),
                    ("up-8", "8 streams up"),
                )
            )
        ),
    ),
    (
        "Small requests beside bulk",
        (
            Row("probe", "p50", "small GET, nothing beside it: p50, ms", 1e3),
            Row("probe", "p99", "… p99, ms", 1e3),
            Row("beside-held", "p50", "beside a download held at 100 MB/s: p50, ms", 1e3),
            Row("beside-held", "p99", "… p99, ms", 1e3),
            Row("beside-held", "bulk", "… and the download, MB/s", 1e-6, 4),
            Row("beside-full", "p50", "beside a download at full speed: p50, ms", 1e3),
            Row("beside-full", "p99", "… p99, ms", 1e3),
            Row("beside-full", "bulk", "… and the download, MB/s", 1e-6, 4),
            Row("beside-full", "relay_peak", "… memory of the relay above idle, MiB", 1 / MIB),
            Row("beside-full", "agent_peak", "… memory of the agent above idle, MiB", 1 / MIB),
        ),
    ),
    (
        "Streams and messages",
        (
            Row("events", "p50", "server-sent events at 100/s: delay p50, ms", 1e3),
            Row("events", "p99", "… p99, ms", 1e3),
            Row("events", "first", "… time to the first event, ms", 1e3),
            Row("echo", "rate", "WebSocket echo, 32 connections: messages/s", 1.0, 5),
            Row("echo", "relay_cpu", "… CPU of the relay per 1,000 messages, ms", 1e3),
            Row("echo", "agent_cpu", "… CPU of the agent per 1,000 messages, ms", 1e3),
        ),
    ),
    (
        "100 ms of round trip between agent and relay",
        (
            *_bulk((("path-down", "the same path without the delay, down"),), "sustained")[:1],
            *_bulk((("path-up", "the same path without the delay, up"),), "sustained")[:1],
            *_bulk((("far-down", "one stream down, sustained"), ("far-up", "one stream up, sustained")), "sustained"),
            Row("far-beside", "p50", "small GET beside a download at full speed: p50, ms", 1e3),
            Row("far-beside", "p99", "… p99, ms", 1e3),
            Row("far-beside", "bulk", "… and the download, MB/s", 1e-6, 4),
            Row("far-beside", "relay_peak", "… memory of the relay above idle, MiB", 1 / MIB),
            Row("far-beside", "agent_peak", "… memory of the agent above idle, MiB", 1 / MIB),
            Row("far-small-32", "rate", "small GET, 32 connections: requests/s", 1.0, 4),
        ),
    ),
    (
        "Memory and growth",
        (
            Row("idle", "relay_memory", "idle: resident memory of the relay, MiB", 1 / MIB),
            Row("idle", "agent_memory", "… of the agent, MiB", 1 / MIB),
            Row("idle-streams", "relay_memory", "one idle event stream: memory of the relay, KiB", 1 / 1024),
            Row("idle-streams", "agent_memory", "… of the agent, KiB", 1 / 1024),
            Row("idle-agents", "relay_memory", "one more idle agent: memory of the relay, KiB", 1 / 1024),
            Row("idle-names", "relay_memory", "one more name of an agent: memory of the relay, KiB", 1 / 1024),
            Row("registered-1", "rate", "small GET with 1 tunnel registered: requests/s", 1.0, 5),
            Row("registered-100", "rate", "… with 100", 1.0, 5),
            Row("registered-1000", "rate", "… with 1,000", 1.0, 5),
            Row("registered-1", "relay_cpu", "CPU of the relay per 1,000 requests with 1 tunnel, ms", 1e3),
            Row("registered-100", "relay_cpu", "… with 100", 1e3),
            Row("registered-1000", "relay_cpu", "… with 1,000", 1e3),
            Row("in-service", "established", "an agent from its start to its welcome, ms", 1e3),
            Row("in-service", "answered", "… to the first answer through it, ms", 1e3),
        ),
    ),
    ("What the load maker and the origin used", tuple(_busy())),
)


def number(value: float, digits: int) -> str:
    """So many significant digits, with commas, never as a power of ten."""
    if value == 0:
        return "0"
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{round(value, digits - whole):,.{max(0, min(digits - whole, 3))}f}"


def cell(figure: Figure | None, row: Row) -> str:
    """`median (min–max)`, the median alone of one round, `–` where nothing was measured."""
    if figure is None:
        return "–"
    spread = (figure.median, figure.least, figure.most)
    median, least, most = (number(value * row.factor, row.digits) for value in spread)
    return median if figure.count == 1 else f"{median} ({least}–{most})"


def measured(results: Results) -> str:
    """All sections that hold a figure."""
    parts: list[str] = []
    for title, rows in SECTIONS:
        names = [name for name in results.systems if any(name in results.measured(row.workload) for row in rows)]
        body: list[str] = []
        for row in rows:
            figures = [results.figure(row.workload, name, row.key) for name in names]
            if any(figures):
                body.append(f"| {row.label} | " + " | ".join(cell(figure, row) for figure in figures) + " |")
        if body:
            head = [f"### {title}", "", "| | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
            parts.append("\n".join([*head, *body]))
    return "\n\n".join(parts)


def judged(results: Results) -> str:
    """The targets, what became of them, and the same figure of the others that were measured."""
    beside = [name for name in results.systems if name not in ("direct", "asgi", "relay")]
    head = ["what, in one run", "needed ●", "wanted ○", "relay", "", *beside]
    rows = [f"| {' | '.join(head)} |", "| --- | ---: | ---: | ---: | --- |" + " ---: |" * len(beside)]
    for target in TARGETS:
        cells = [target.what, target.limit(target.needed), target.limit(target.wanted)]
        cells += [target.show(target.value(results)), _VERDICTS[target.verdict(results)]]
        cells += [target.show(target.value(results, name)) for name in beside]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)
