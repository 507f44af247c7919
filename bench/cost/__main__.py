"""`python -m bench.cost`: counts, compares with the record, 1 when a budget is exceeded by more than 5 %.

`--record` makes what is now the budget; `--top N` lists the functions with the most bytecodes in each script.
"""

from __future__ import annotations

import argparse
import sys

from bench.cost import budget, scripts


def main() -> int:
    """Entry of `python -m bench.cost`."""
    parser = argparse.ArgumentParser(prog="python -m bench.cost", description="Count calls and bytecodes per request.")
    parser.add_argument("--record", action="store_true", help="what is counted now becomes the budget")
    parser.add_argument("--top", type=int, default=0, help="also the functions with the most bytecodes")
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help=f"of {', '.join(scripts.SCRIPTS)}; default: all")
    options = parser.parse_args()
    unknown = set(options.scripts) - scripts.SCRIPTS.keys()
    if unknown:
        parser.error(f"no script is named {', '.join(sorted(unknown))}")
    names = options.scripts or list(scripts.SCRIPTS)
    costs = {name: budget.Cost.of(scripts.run(name), scripts.SCRIPTS[name].units) for name in names}
    try:
        python, recorded = budget.load()
    except FileNotFoundError:
        python, recorded = budget.PYTHON, {}
    said, exceeded = budget.compare(costs, recorded, python)
    sys.stdout.write("\n".join(said) + "\n")
    for name in names if options.top else ():
        top = sorted(costs[name].functions["bytecodes"].items(), key=lambda item: -item[1])[: options.top]
        sys.stdout.write(f"\n{name}, bytecodes per {scripts.SCRIPTS[name].unit}:\n")
        sys.stdout.writelines(f"{number:8.2f}  {function}\n" for function, number in top)
    if python != budget.PYTHON:
        sys.stdout.write(f"The record was made with Python {python}: only calls were compared.\n")
    if options.record:
        budget.save({**recorded, **costs})
        sys.stdout.write("Recorded.\n")
        return 0
    if not recorded:
        sys.stdout.write("There is no record yet: make one with --record.\n")
    elif exceeded:
        sys.stdout.write("Above the budget. If this is what it must cost, record it: make cost ARGS=--record\n")
    return int(exceeded)


if __name__ == "__main__":
    sys.exit(main())
