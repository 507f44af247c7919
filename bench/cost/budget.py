"""The recorded costs, and what is said about a difference. bench/cost.json holds them, one number for each function.

Bytecodes and built-in calls differ between versions of Python and are compared only on the one of the record.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.cost.count import SIDES, Count
from bench.cost.scripts import SCRIPTS

RECORD = Path(__file__).parents[1] / "cost.json"
ALLOWED = 1.05
SHOWN = 8
KINDS = ("calls", "built-in", "bytecodes")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(slots=True)
class Cost:
    """Of one script, per unit: what each side did of each kind, and by kind and function."""

    totals: dict[str, dict[str, float]]
    """Kind and side."""
    functions: dict[str, dict[str, float]] = field(default_factory=dict)
    """Kind, and side with function."""

    @classmethod
    def of(cls, count: Count, units: int) -> Cost:
        """What was counted, per unit."""
        kinds = {"calls": count.calls, "built-in": count.builtins, "bytecodes": count.bytecodes}
        totals = {
            kind: {side: _per(count.total(counter, side), units) for side in SIDES} for kind, counter in kinds.items()
        }
        functions = {
            kind: {f"{side} {name}": _per(number, units) for (side, name), number in sorted(counter.items())}
            for kind, counter in kinds.items()
        }
        return cls(totals, functions)


def _per(number: int, units: int) -> float:
    return round(number / units, 3)


def save(costs: dict[str, Cost]) -> None:
    """Records them."""
    record = {"python": PYTHON, "scripts": {name: asdict(cost) for name, cost in costs.items()}}
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load() -> tuple[str, dict[str, Cost]]:
    """(the Python of the record, the costs). Raises FileNotFoundError."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    return record["python"], {name: Cost(**one) for name, one in record["scripts"].items()}


def compare(costs: dict[str, Cost], recorded: dict[str, Cost], python: str) -> tuple[list[str], bool]:
    """(what to print, whether a budget is exceeded)."""
    kinds = KINDS if python == PYTHON else ("calls",)
    said = [f"{'script':<15} {'side':<6}" + "".join(f" {kind:>10} {'budget':>9} {'':>7}" for kind in KINDS)]
    exceeded = False
    for name, cost in costs.items():
        old = recorded.get(name)
        for side in SIDES:
            line, over = f"{name:<15} {side:<6}", []
            for kind in KINDS:
                now, budget = cost.totals[kind][side], old.totals[kind][side] if old and kind in kinds else 0.0
                line += f" {now:10.1f} {budget:9.1f} {_change(now, budget):>7}"
                over += [kind] if budget and now > budget * ALLOWED else []
            exceeded = exceeded or bool(over)
            mark = f"  ABOVE THE BUDGET: {', '.join(over)}" if over else ""
            said.append(f"{line}{mark}  per {SCRIPTS[name].unit}")
        if old:
            said += [f"    {line}" for kind in kinds for line in _by_function(kind, cost, old)]
    return said, exceeded


def _change(now: float, budget: float) -> str:
    return f"{(now / budget - 1) * 100:+.1f}%" if budget else "new"


def _by_function(kind: str, cost: Cost, old: Cost) -> list[str]:
    """The functions whose number changed, the largest differences first."""
    now, before = cost.functions[kind], old.functions[kind]
    changes = {name: now.get(name, 0.0) - before.get(name, 0.0) for name in now.keys() | before.keys()}
    changed = sorted((name for name in changes if abs(changes[name]) >= 0.01), key=lambda name: -abs(changes[name]))
    lines = [f"{changes[name]:+9.2f} {kind:<9} {name}" for name in changed[:SHOWN]]
    return lines + ([f"          and {len(changed) - SHOWN} more"] if len(changed) > SHOWN else [])
