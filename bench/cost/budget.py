"""The recorded costs, and what is said about a difference. bench/cost.json holds them, one number for each function.

Built-in calls differ between versions of Python and are compared only on the one that the record was made with.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.cost.count import SIDES, Count
from bench.cost.scripts import SCRIPTS

RECORD = Path(__file__).parents[1] / "cost.json"
ALLOWED = 1.05
SHOWN = 12
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(slots=True)
class Cost:
    """Of one script: calls per unit of each side, Python's and built-in ones, and by function."""

    calls: dict[str, float]
    builtins: dict[str, float]
    functions: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, count: Count, units: int) -> Cost:
        """What was counted, per unit."""
        by_function: Counter[str] = Counter()
        for counter in (count.calls, count.builtins):
            mark = "" if counter is count.calls else " → built-in"
            for (side, name), number in counter.items():
                by_function[f"{side} {name}{mark}"] += number
        return cls(
            {side: _per(count.total(count.calls, side), units) for side in SIDES},
            {side: _per(count.total(count.builtins, side), units) for side in SIDES},
            {name: _per(number, units) for name, number in sorted(by_function.items())},
        )

    def to_record(self) -> dict[str, Any]:
        """For JSON."""
        return {"calls": self.calls, "builtins": self.builtins, "functions": self.functions}


def _per(number: int, units: int) -> float:
    return round(number / units, 3)


def save(costs: dict[str, Cost]) -> None:
    """Records them."""
    record = {"python": PYTHON, "scripts": {name: cost.to_record() for name, cost in costs.items()}}
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load() -> tuple[str, dict[str, Cost]]:
    """(the Python of the record, the costs). Raises FileNotFoundError."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    return record["python"], {name: Cost(**one) for name, one in record["scripts"].items()}


def compare(costs: dict[str, Cost], recorded: dict[str, Cost], python: str) -> tuple[list[str], bool]:
    """(what to print, whether a budget is exceeded)."""
    said = [f"{'script':<15} {'side':<6} {'calls':>8} {'budget':>8} {'':>7} {'built-in':>9} {'budget':>8}"]
    exceeded = False
    for name, cost in costs.items():
        old = recorded.get(name)
        worse = False
        for side in SIDES:
            calls, builtins = cost.calls[side], cost.builtins[side]
            budget = old.calls[side] if old else 0.0
            allowed = old.builtins[side] if old and python == PYTHON else 0.0
            over = [what for what, is_over in (("calls", _over(calls, budget)), ("built-in", _over(builtins, allowed)))
                    if is_over]  # fmt: skip
            worse = worse or bool(over)
            mark = f"  ABOVE THE BUDGET: {', '.join(over)}" if over else ""
            said.append(
                f"{name:<15} {side:<6} {calls:8.2f} {budget:8.2f} {_change(calls, budget):>7} "
                f"{builtins:9.2f} {allowed:8.2f}{mark}  per {SCRIPTS[name].unit}"
            )
        if old:
            said += [f"    {line}" for line in _by_function(cost, old)]
        exceeded = exceeded or worse
    return said, exceeded


def _over(now: float, budget: float) -> bool:
    return bool(budget) and now > budget * ALLOWED


def _change(now: float, budget: float) -> str:
    return f"{(now / budget - 1) * 100:+.1f}%" if budget else "new"


def _by_function(cost: Cost, old: Cost) -> list[str]:
    """The functions whose number changed, the largest differences first."""
    names = cost.functions.keys() | old.functions.keys()
    changes = {name: cost.functions.get(name, 0.0) - old.functions.get(name, 0.0) for name in names}
    changed = sorted((name for name in names if abs(changes[name]) >= 0.01), key=lambda name: -abs(changes[name]))
    lines = [f"{changes[name]:+8.2f}  {name}" for name in changed[:SHOWN]]
    return lines + ([f"          and {len(changed) - SHOWN} more"] if len(changed) > SHOWN else [])
