"""The systems: what is absent is skipped with a line, what is there answers on both doors and ends with its place."""

from __future__ import annotations

import dataclasses
import shutil
import sysconfig
from pathlib import Path

import pytest

import bench.__main__ as bench_main
from bench import measure, nginxconf, page, plot, results, stages, systems
from bench.__main__ import chosen
from bench.effort import FULL, QUICK, Effort
from bench.measure import Bulk
from bench.place import Door, Place, Unavailable, place, status, version_of
from bench.results import Results, Sample
from bench.rivals import RIVALS
from bench.stages import Run, Workload
from bench.systems import REFERENCES, RELAY, Running, System, Together

MIB = 2**20
nginx = pytest.mark.skipif(
    shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin") is None, reason="nginx is not installed"
)
BY_NAME = {system.name: system for system in (*REFERENCES, RELAY)}


@nginx
@pytest.mark.parametrize("name", ["nginx", "relay"])
async def test_a_system_serves_both_doors(name: str) -> None:
    """The small answer, a whole large file and a whole upload come through, and its processes are measured."""
    async with place() as here:
        running = await BY_NAME[name].start(here.inner(name, here.stack))
        assert await status(running.static, nginxconf.SMALL) == 200
        running.note_idle()
        running.origins = here.origins
        down = await measure.bulk(running, Bulk("down", 32 * MIB))
        up = await measure.bulk(running, Bulk("up", 128 * MIB))
    assert (down["bytes"], up["bytes"]) == (32 * MIB, 128 * MIB)
    assert down["relay_cpu"] > 0
    assert ("agent_cpu" in down) is (name == "relay")
    assert down["load_busy"] > 0
    assert up["origin_busy"] > 0
    assert running.relay_idle > 0


async def test_a_rival_that_is_absent_is_skipped_with_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without its program a rival is noted and not started; the run goes on with the others."""
    monkeypatch.setenv("PATH", str(tmp_path))
    run = Run(Results(), QUICK, verbose=False)
    here = Place(tmp_path, stack=None)  # type: ignore[arg-type]  # nothing is started, so nothing must end
    assert await stages.start(run, here, RIVALS, "near") == []
    assert len(run.results.notes) == len(RIVALS)
    assert all("was skipped" in note and "not on the PATH" in note for note in run.results.notes)


@pytest.mark.parametrize(
    ("left", "why"), [("", "has not made it for this Python"), ("old", "of other code"), ("same", "")]
)
def test_the_compiled_build_is_measured_if_it_is_of_this_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, left: str, why: str
) -> None:
    """Figures of an older state beside those of this one would mislead; what is interpreted is not called compiled."""
    tree = tmp_path / ".venvs/compiled/tree"
    for folder, text in ((tmp_path, "same"), (tree, left)):
        (folder / "relay/wire").mkdir(parents=True)
        (folder / "relay/wire/frames.py").write_text(text)
    if left:
        (tree / f"relay/wire/frames{sysconfig.get_config_var('EXT_SUFFIX')}").touch()
    monkeypatch.setattr(systems, "ROOT", tmp_path)
    if why:
        with pytest.raises(Unavailable, match=why):
            systems.compiled_tree()
    else:
        assert systems.compiled_tree() == tree


async def test_a_step_that_fails_is_noted_and_not_a_figure() -> None:
    """One failure costs one cell of the table, and is told."""

    async def failing(running: Running) -> Sample:
        raise ValueError("nonsense")

    run = Run(Results(), QUICK, verbose=False)
    await run.step(Workload("down-1", failing), Running("relay", None))  # type: ignore[arg-type]
    assert run.results.samples == {}
    assert run.results.notes == ["down-1 failed with relay: nonsense"]


async def test_nothing_begins_when_the_time_is_up() -> None:
    """A run is bounded: behind its limit steps are left out, which is told once."""

    async def work(running: Running) -> Sample:
        raise AssertionError("must not run")

    run = Run(Results(), QUICK, verbose=False)
    run.clock.limit = -1.0
    for _ in range(3):
        await run.step(Workload("down-1", work), Running("relay", None))  # type: ignore[arg-type]
    assert len(run.results.notes) == 1
    assert "The time was up" in run.results.notes[0]


class Rounds:
    """Near rounds of one tenth of a second a step, on a clock of their own, with a relay and a rival."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, effort: Effort) -> None:
        self.run = Run(Results(), effort, verbose=False)
        self.now = 0.0
        self.steps: list[tuple[str, str]] = []
        monkeypatch.setattr(self.run.clock, "passed", lambda: self.now)
        monkeypatch.setattr(self.run, "step", self._step)
        monkeypatch.setattr(stages, "start", self._start)

    async def _step(self, workload: Workload, running: Running) -> None:
        self.now += 0.1
        self.steps.append((workload.name, running.name))

    async def _start(self, _run: Run, place: Place, systems: list[System], stage: str) -> list[Running]:
        return [Running(system.name, Door(1)) for system in systems]

    async def near(self, tmp_path: Path) -> None:
        """All rounds."""
        rival = System("slow", "about", RELAY.start, rival=True)
        await stages.near(self.run, Place(tmp_path, stack=None), [RELAY, rival])  # type: ignore[arg-type]

    def rounds_of(self, workload: str, name: str) -> int:
        """How often a system was asked for it."""
        return self.steps.count((workload, name))


async def test_rivals_take_part_while_time_suffices_for_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With time they have all rounds but for the minor workloads; small differences are measured more often."""
    rounds = Rounds(monkeypatch, FULL)
    await rounds.near(tmp_path)
    assert rounds.rounds_of("small-32", "relay") == rounds.rounds_of("small-32", "slow") == 3
    assert rounds.rounds_of("small-1", "relay") == 3 * FULL.again
    assert (rounds.rounds_of("varied-32", "relay"), rounds.rounds_of("varied-32", "slow")) == (3, 1)
    assert rounds.run.results.notes == []


async def test_rivals_are_left_out_where_time_is_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They have the first round; later ones are kept for the relay, which is told."""
    rounds = Rounds(monkeypatch, dataclasses.replace(FULL, limit=10.0, reserve=4.0))
    await rounds.near(tmp_path)
    assert (rounds.rounds_of("small-32", "relay"), rounds.rounds_of("small-32", "slow")) == (3, 1)
    assert [note.partition(":")[0] for note in rounds.run.results.notes] == [
        f"The others were left out of round {number}" for number in (2, 3)
    ]


async def test_a_load_maker_that_is_full_up_is_told() -> None:
    """What may have limited a system instead of itself stands in the notes; for the origin alone it is no news."""

    async def work(running: Running) -> Sample:
        return {"rate": 1.0, "load_busy": 0.95, "origin_busy": 0.2}

    run = Run(Results(), QUICK, verbose=False)
    for name in ("direct", "relay"):
        await run.step(Workload("small-32", work), Running(name, Door(1)))
    assert run.results.notes == ["small-32: the load maker or the origin may have limited relay."]


def test_several_processes_are_measured_as_one() -> None:
    """A part of a system that is two processes costs what both cost."""

    class Part:
        def rss(self) -> int:
            return 3

        peak_rss = rss

        def cpu_seconds(self) -> float:
            return 0.5

    both = Together(Part(), Part())  # type: ignore[arg-type]
    assert (both.rss(), both.peak_rss(), both.cpu_seconds()) == (6, 6, 1.0)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("nginx version: nginx/1.22.1", "1.22.1"),
        ("Build Timestamp: 2026-11-21T15:32:04.482714937Z\nBuild Version: 0.5.0", "0.5.0"),
        ("wrk debian/4.1.0-3+b2 [epoll]", "4.1.0"),
        ("nothing of the kind", ""),
    ],
)
def test_a_program_tells_its_version(said: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first number of three parts, wherever it stands and on whichever output; no time of day."""
    program = tmp_path / "teller"
    program.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{said}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert version_of("teller", "--version") == version
    assert version_of("absent", "--version") == ""


def test_the_reference_buffers_what_is_static_and_nothing_that_is_live(tmp_path: Path) -> None:
    """nginx has its own defaults where answers have a length, so that it is as fast as it is elsewhere; no disk."""
    text = nginxconf.proxy(tmp_path, {"static": (1, 2), "live": (3, 4)})
    static, live = text.partition("upstream live")[::2]
    assert "proxy_buffering" not in static
    assert "proxy_max_temp_file_size 0;" in static
    assert "proxy_buffering off; proxy_request_buffering off;" in live


def test_a_quick_run_has_no_rivals_unless_they_are_named() -> None:
    """Names choose; without them a quick run keeps to the references and the relay."""
    assert [system.name for system in chosen(None, quick=True)] == ["direct", "nginx", "asgi", "relay"]
    assert {system.name for system in chosen(None, quick=False)} >= {"frp", "piko", "chisel", "rathole", "bore"}
    assert [system.name for system in chosen("relay,frp", quick=True)] == ["relay", "frp"]
    with pytest.raises(Unavailable, match="nobody"):
        chosen("nobody", quick=True)


@pytest.mark.parametrize(
    ("options", "publishes"),
    [([], True), (["--quick"], False), (["--systems", "relay"], False), (["--rounds", "1"], False)],
)
def test_a_whole_run_and_no_other_writes_the_page(
    options: list[str], publishes: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was measured in part is told on the terminal and in bench/results alone."""
    published: list[Results] = []
    found = Results(quick="--quick" in options)

    async def measured(effort: Effort, systems: list[System], wanted: list[str]) -> Results:
        assert effort.quick is found.quick
        return found

    monkeypatch.setattr(bench_main, "measure", measured)
    monkeypatch.setattr(bench_main, "program", lambda name: name)
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(plot, "draw", lambda results, path: None)
    monkeypatch.setattr(page, "publish", published.append)
    monkeypatch.setattr("sys.argv", ["bench", *options])
    assert bench_main.main() == 0
    assert published == ([found] if publishes else [])
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".json", ".md"]


def test_every_system_is_described() -> None:
    """A reader learns of each system how it was run."""
    systems: list[System] = [*REFERENCES, RELAY, *RIVALS]
    assert len({system.name for system in systems}) == len(systems)
    assert all(len(system.about.split()) >= 3 for system in systems)
