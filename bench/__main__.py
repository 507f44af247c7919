"""`python -m bench [--quick]`: a run, its figures, tables and picture; a whole one also writes docs/performance.md.

`python -m bench page [RUN.json]` makes that page again, from the run beside it or from another one.
Exits with 0 whatever the figures are: a benchmark tells, it does not judge a build. 2: it could not run at all.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import sys
import time
from pathlib import Path

from bench import page, plot, profile, results, stages, table, targets
from bench.effort import FULL, QUICK, Effort
from bench.place import Unavailable, place, program, version_of
from bench.rivals import RIVALS
from bench.systems import COMPILED, REFERENCES, RELAY, System

GRACE = 40.0  # seconds behind the limit, in which the last step ends; then the run is cut
QUIET = 0.1  # cores that others may use
STAGES = ("near", "far", "growth")


def main() -> int:
    """Entry of `python -m bench`."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the relay beside others.")
    parser.add_argument("what", nargs="?", choices=("run", "page"), default="run")
    parser.add_argument("of", nargs="?", type=Path, metavar="RUN.json", help="of `page`: the run that it shows")
    parser.add_argument("--quick", action="store_true", help="two minutes, one round, no rivals unless named")
    parser.add_argument("--systems", help="names, separated by commas; default: all that are here")
    parser.add_argument("--stages", default=",".join(STAGES), help="of near, far and growth")
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    if options.what == "page":
        page.publish_again(options.of)
        return 0
    raise_descriptor_limit()
    effort = QUICK if options.quick else FULL
    if options.rounds:
        effort = dataclasses.replace(effort, rounds=options.rounds, far_rounds=options.rounds)
    try:
        for name in ("nginx", "wrk"):
            program(name)
        found = asyncio.run(measure(effort, chosen(options.systems, options.quick), options.stages.split(",")))
    except Unavailable as why:
        sys.stderr.write(f"Nothing was measured: {why}. Debian's packages nginx and wrk have what is needed.\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("Stopped; nothing was written.\n")
        return 130
    whole = options.rounds is None and options.systems is None and options.stages == ",".join(STAGES)
    write(found, publish=whole and not options.quick)
    return 0


def chosen(names: str | None, quick: bool) -> list[System]:
    """Those to be measured: all, without the rivals in a quick run, or those that were named. Raises Unavailable."""
    every = [*REFERENCES, RELAY, COMPILED, *RIVALS]
    if names is None:
        return [system for system in every if not (quick and system.rival)]
    wanted = names.split(",")
    unknown = set(wanted) - {system.name for system in every}
    if unknown:
        raise Unavailable(f"no system is named {', '.join(sorted(unknown))}")
    return [system for system in every if system.name in wanted]


async def measure(effort: Effort, systems: list[System], wanted: list[str]) -> results.Results:
    """The stages, one after the other; what was measured when the time is up counts."""
    found = results.Results(effort.quick, results.today(), results.machine(version_of("wrk", "-v")))
    if not effort.quick:
        found.profile = dataclasses.asdict(await asyncio.to_thread(profile.taken))
    run = stages.Run(found, effort)
    busy, ours = results.busy(), results.ours()
    if effort.quick:
        found.notes.append("A quick run: one round, short loads, and no rivals unless they were named.")
    try:
        async with asyncio.timeout(effort.limit + GRACE), place() as here:
            if "near" in wanted:
                await stages.near(run, here, systems)
            if "far" in wanted:
                await stages.far(run, here, [one for one in systems if not one.rival], effort.far_rounds)
            if "growth" in wanted and RELAY in systems:
                await stages.growth(run, here, systems)
            if "far" in wanted:  # with the time that is left
                await stages.far(run, here, [one for one in systems if one.rival], 1)
    except TimeoutError:
        run.note("The run was cut: a step took far longer than it should.")
    found.seconds = run.clock.passed()
    others = max(0.0, results.busy() - busy - (results.ours() - ours)) / found.seconds
    found.notes.append(
        f"Beside the run, other processes of the machine used {others:.2f} cores on average"
        + ("." if others < QUIET else ": it was not quiet, and the figures mean little.")
    )
    return found


def write(found: results.Results, publish: bool) -> None:
    """JSON, Markdown and PNG into bench/results; the verdicts on stdout; the page where it is asked for."""
    stem = results.FOLDER / (time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + ("-quick" if found.quick else ""))
    results.FOLDER.mkdir(exist_ok=True)
    stem.with_suffix(".json").write_text(found.to_json(), encoding="utf-8")
    text = f"{table.judged(found)}\n\n{table.measured(found)}\n"
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    try:
        plot.draw(found, stem.with_suffix(".png"))
        if publish:
            page.publish(found)
    except ImportError:
        found.notes.append("No picture: matplotlib is not installed (the extra `bench` has it).")
    sys.stdout.write("\n" + text + "\n" + "\n".join(targets.lines(found)) + "\n")
    for note in found.notes:
        sys.stdout.write(f"note: {note}\n")
    sys.stdout.write(f"\nWritten: {stem.relative_to(Path.cwd()) if stem.is_relative_to(Path.cwd()) else stem}.*\n")


def raise_descriptor_limit() -> None:
    """A thousand streams are a thousand descriptors, here and in every process that is started from here."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 16384)), hard))


if __name__ == "__main__":
    sys.exit(main())
