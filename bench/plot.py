"""The picture: panels of bars, one bar a system, the relay in its own colour. Needs matplotlib (extra `bench`).

It carries a digest of the run that it shows, so that a picture of another run is found out.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from bench.results import Results

# (title, unit, factor, the figures that are added up: workload and key)
PANELS: tuple[tuple[str, str, float, tuple[tuple[str, str], ...]], ...] = (
    ("Small GET, 32 connections", "requests/s", 1.0, (("small-32", "rate"),)),
    ("CPU of both ends per small GET", "µs", 1e3, (("small-32", "relay_cpu"), ("small-32", "agent_cpu"))),
    ("One stream down", "MB/s", 1e-6, (("down-1", "rate"),)),
    ("p99 of a small GET beside bulk at full speed", "ms", 1e3, (("beside-full", "p99"),)),
    ("100 ms: one stream down, sustained", "MB/s", 1e-6, (("far-down", "sustained"),)),
    ("100 ms: p99 of a small GET beside that bulk", "ms", 1e3, (("far-beside", "p99"),)),
)
OURS, OTHERS = "#1f6f8b", "#b9c4c9"


def digest(results: Results) -> str:
    """Of everything that was measured."""
    return "run " + hashlib.sha256(results.to_json().encode()).hexdigest()


def draw(results: Results, path: Path) -> None:
    """Writes a PNG. Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(13, 6), constrained_layout=True)
    for axis, (title, unit, factor, keys) in zip(axes.flat, PANELS, strict=True):
        _panel(axis, results, factor, keys)
        axis.set_title(title, fontsize=10)
        axis.set_ylabel(unit)
    figure.savefig(path, dpi=110, metadata={"Software": None, "Description": digest(results)})
    pyplot.close(figure)


def _panel(axis: Any, results: Results, factor: float, keys: tuple[tuple[str, str], ...]) -> None:  # noqa: ANN401
    names: list[str] = []
    heights: list[float] = []
    for name in results.systems:
        values = [results.median(workload, name, key) for workload, key in keys]
        if values[0] is not None:
            names.append(name)
            heights.append(sum(value for value in values if value is not None) * factor)
    bars = axis.bar(names, heights, width=0.7, color=[OURS if name == "relay" else OTHERS for name in names])
    axis.set_xlim(-0.6, max(len(names), 3) - 0.4)
    axis.bar_label(bars, fmt="{:,.3g}" if max(heights, default=0) < 100 else "{:,.0f}", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="x", labelsize=8)
