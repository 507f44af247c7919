"""`python -m tests.soak [--seconds 600] [--seed N]`: the soak from the command line. Exit code 0: all of it holds."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from pathlib import Path

from tests.soak.soak import Plan, Report, as_json, soak

FILE = "soak.json"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _tell(report: Report) -> None:
    for title, counts in (
        ("exchanges", report.exchanges),
        ("outcomes", report.outcomes),
        ("faults", report.faults),
    ):
        _say(f"{title:10} " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    for check in report.checks:
        _say(f"{'ok  ' if check.ok else 'MISS'}  {check.name}\n      asked  {check.asked}\n      seen   {check.seen}")
    held = sum(check.ok for check in report.checks)
    _say(f"{held} of {len(report.checks)} held, seed {report.plan.seed}; written to {FILE}")


def main() -> int:
    """Entry."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="A mixed load with faults, and accounts.")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=None, help="any number; one of chance unless given")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    _say(f"soak for {arguments.seconds:g} s, seed {seed} (the same again: SOAK_SEED={seed})")
    report = asyncio.run(soak(Plan(arguments.seconds, seed), _say))
    Path(FILE).write_text(json.dumps(as_json(report)) + "\n", encoding="utf-8")
    _tell(report)
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
