"""Where the interpreter's work goes: bytecodes by function and side on the scripts of `bench.cost`, before and after.

`python -m bench.profile` prints it. "Before" is a record, made in the same way of an older commit; "after" belongs to a
run. What is compiled and what the kernel does is not in it: those are in the processor's time of a run.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.cost import budget, scripts
from bench.cost.count import SIDES

BEFORE = Path(__file__).parent / "profile-before.json"
SCRIPT = "small-together"
TOP = 10


@dataclass(frozen=True, slots=True)
class Profile:
    """Per unit of each script; the functions are those of SCRIPT with the most bytecodes."""

    python: str
    totals: dict[str, dict[str, float]]
    """Script and side."""
    top: dict[str, list[tuple[str, float, float]]]
    """Of each side: function, bytecodes, calls."""
    of: str = ""
    """What was counted, where it is not the present one."""


def taken() -> Profile:
    """Of the code as it is now; some seconds."""
    return of_costs({name: budget.Cost.of(scripts.run(name), script.units) for name, script in scripts.SCRIPTS.items()})


def of_costs(costs: dict[str, budget.Cost]) -> Profile:
    """Of what was counted."""
    of_script = costs[SCRIPT].functions
    top: dict[str, list[tuple[str, float, float]]] = {}
    for side in SIDES:
        ours = {name: number for name, number in of_script["bytecodes"].items() if name.startswith(f"{side} ")}
        most = sorted(ours, key=lambda name: -ours[name])[:TOP]
        top[side] = [(name.partition(" ")[2], ours[name], of_script["calls"].get(name, 0.0)) for name in most]
    return Profile(budget.PYTHON, {name: cost.totals["bytecodes"] for name, cost in costs.items()}, top)


def before() -> Profile:
    """The record."""
    return Profile(**json.loads(BEFORE.read_text(encoding="utf-8")))


def render(old: Profile, new: Profile) -> str:
    """Both beside each other, as Markdown."""
    parts = [
        f"Bytecodes that the interpreter executes, Python {new.python}; before: {old.of}, Python {old.python}.",
        _totals(old, new),
    ]
    for side in SIDES:
        rows = [
            "| before | bytecodes | calls | after | bytecodes | calls |",
            "| --- | ---: | ---: | --- | ---: | ---: |",
        ]
        for one, two in zip(old.top[side], new.top[side], strict=True):
            rows.append(f"| {_function(one)} | {_function(two)} |")
        parts += [f"The ten functions of the {side} with the most of them, per request of `{SCRIPT}`:", "\n".join(rows)]
    return "\n\n".join(parts)


def _totals(old: Profile, new: Profile) -> str:
    rows = ["| script, per unit | relay before | after | agent before | after |", "| --- |" + " ---: |" * 4]
    for name, sides in new.totals.items():
        cells = [f"{name}, per {scripts.SCRIPTS[name].unit}"]
        for side in SIDES:
            cells += [f"{profile[side]:,.0f}" for profile in (old.totals[name], sides)]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _function(one: tuple[str, float, float]) -> str:
    name, bytecodes, calls = one
    return f"`{name.removeprefix('relay.')}` | {bytecodes:,.1f} | {calls:,.2f}"


def main() -> None:
    """Entry of `python -m bench.profile`: as JSON with `--json`, else beside the record."""
    new = taken()
    sys.stdout.write(json.dumps(asdict(new), indent=1) if "--json" in sys.argv[1:] else render(before(), new))
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
