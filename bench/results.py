"""The figures of a run: for each workload and system a list of samples, one a round, and what else a reader must know.

A sample is a flat dict of numbers in basic units (seconds, bytes, requests per second). Spread is told as min and max,
never hidden in a mean.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sysconfig
import time
import timeit
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import relay

FOLDER = Path(__file__).parent / "results"
Sample = dict[str, float]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number over the rounds."""

    median: float
    least: float
    most: float
    count: int


@dataclass(slots=True)
class Results:
    """One run. `systems`: name and description, in the order of measurement; `notes`: what was skipped, and why."""

    quick: bool = False
    when: str = ""
    machine: dict[str, str] = field(default_factory=dict)
    systems: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)
    """A `bench.profile.Profile`; empty where none was taken."""

    def add(self, workload: str, system: str, sample: Sample) -> None:
        """One more sample."""
        self.samples.setdefault(workload, {}).setdefault(system, []).append(sample)

    def figure(self, workload: str, system: str, key: str) -> Figure | None:
        """Median and spread of one number; None where it was not measured."""
        got = [one[key] for one in self.samples.get(workload, {}).get(system, []) if key in one]
        return Figure(statistics.median(got), min(got), max(got), len(got)) if got else None

    def median(self, workload: str, system: str, key: str) -> float | None:
        """The median alone."""
        figure = self.figure(workload, system, key)
        return None if figure is None else figure.median

    def measured(self, workload: str) -> list[str]:
        """The systems that this workload was measured on, in order."""
        return [name for name in self.systems if name in self.samples.get(workload, {})]

    def to_json(self) -> str:
        """The whole run as text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """The run that `to_json` wrote. Raises ValueError, TypeError."""
        return cls(**json.loads(text))


def machine(wrk: str = "") -> dict[str, str]:
    """What the figures depend on, with the version of the load maker. No name of the machine, no path."""
    said = {"processor": _processor(), "cores": str(len(os.sched_getaffinity(0))), "memory": _memory()}
    said["kernel"] = f"{platform.system()} {platform.release().partition('-')[0]}"
    said["Python"] = f"{platform.python_version()} ({_build()})"
    said["relay"] = relay.__version__
    for package in ("uvloop", "picows", "httptools", "uvicorn"):
        said[package] = version(package)
    return said | ({"wrk": wrk} if wrk else {})


def today() -> str:
    """The date of a run, UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


def busy() -> float:
    """CPU seconds that all processes of the machine used since it was started; 0 where the kernel does not tell."""
    fields = (_lines("/proc/stat") or ["cpu"])[0].split()[1:]
    idle = (3, 4)  # idle and waiting for a disk
    used = sum(int(value) for at, value in enumerate(fields[:8]) if at not in idle)
    return used / os.sysconf("SC_CLK_TCK")


def ours() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system


def _build() -> str:
    """How the interpreter was configured, and how fast it is: some distributions optimise theirs by other ways."""
    flags = str(sysconfig.get_config_var("CONFIG_ARGS"))
    said = [f"{'with' if flag in flags else 'without'} {flag}" for flag in ("--enable-optimizations", "--with-lto")]
    turns = 100_000
    loop = timeit.repeat(
        "for i in range(turns): total += i & 7", "total = 0", globals={"turns": turns}, number=1, repeat=20
    )
    return f"configured {' and '.join(said)}; one turn of a simple loop takes {min(loop) / turns * 1e9:.0f} ns"


def _processor() -> str:
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory() -> str:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemTotal"):
            return f"{int(line.split()[1]) / 2**20:.0f} GiB"
    return "unknown"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
