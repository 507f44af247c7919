"""The systems: what is absent is skipped with a line, what is there answers on both doors and ends with its place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import measure, nginxconf, stages
from bench.__main__ import chosen
from bench.effort import QUICK
from bench.measure import Bulk
from bench.place import Place, Unavailable, place, status
from bench.results import Results, Sample
from bench.rivals import RIVALS
from bench.stages import Run, Workload
from bench.systems import REFERENCES, RELAY, Running, System

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
        down = await measure.bulk(running, Bulk("down", 32 * MIB))
        up = await measure.bulk(running, Bulk("up", 4 * MIB))
    assert (down["bytes"], up["bytes"]) == (32 * MIB, 4 * MIB)
    assert down["relay_cpu"] > 0
    assert ("agent_cpu" in down) is (name == "relay")
    assert running.relay_idle > 0


async def test_a_rival_that_is_absent_is_skipped_with_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without its program a rival is noted and not started; the run goes on with the others."""
    monkeypatch.setenv("PATH", str(tmp_path))
    run = Run(Results(), QUICK, verbose=False)
    here = Place(tmp_path, stack=None)  # type: ignore[arg-type]  # nothing is started, so nothing must end
    assert await stages.start(run, here, RIVALS, "near") == []
    assert len(run.results.notes) == len(RIVALS)
    assert all("was skipped" in note and "not on the PATH" in note for note in run.results.notes)


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


def test_a_quick_run_has_no_rivals_unless_they_are_named() -> None:
    """Names choose; without them a quick run keeps to the references and the relay."""
    assert [system.name for system in chosen(None, quick=True)] == ["direct", "nginx", "asgi", "relay"]
    assert {system.name for system in chosen(None, quick=False)} >= {"frp", "piko", "chisel", "rathole", "bore"}
    assert [system.name for system in chosen("relay,frp", quick=True)] == ["relay", "frp"]
    with pytest.raises(Unavailable, match="nobody"):
        chosen("nobody", quick=True)


def test_every_system_is_described() -> None:
    """A reader learns of each system how it was run."""
    systems: list[System] = [*REFERENCES, RELAY, *RIVALS]
    assert len({system.name for system in systems}) == len(systems)
    assert all(len(system.about.split()) >= 3 for system in systems)
