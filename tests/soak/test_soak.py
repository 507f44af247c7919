"""The soak itself: a few seconds of it in every run, ten minutes in the long one; and what its accounts notice."""

from __future__ import annotations

import pytest

from tests.soak.soak import Plan, soak
from tests.soak.verdict import (
    Memory,
    check_baseline,
    check_credit,
    check_errors,
    check_kinds,
    check_memory,
)
from tests.soak.visits import KINDS, OK, Visit
from tests.soak.weather import Spell
from tests.support.longer import CHAOS
from tests.support.reliability import Record

MIB = 2**20
SEED = 1
SECONDS = 600.0 if CHAOS else 3.0


@pytest.mark.chaos
@pytest.mark.timeout(900 if CHAOS else 90)
async def test_soak(record: Record) -> None:
    """Every check holds; in a short one memory is only shown."""
    lines: list[str] = []
    report = await soak(Plan(SECONDS, SEED), lines.append)
    missed = [f"{check.name}: {check.seen} (asked: {check.asked})" for check in report.checks if not check.ok]
    exchanges, faults = sum(report.exchanges.values()), sum(report.faults.values())
    memory = [check.seen for check in report.checks if check.name == "memory of the relay"]
    record(
        name="soak",
        asked=f"{SECONDS:g} s of mixed load with faults: memory flat, descriptors and tasks back at their baseline, "
        "every credit accounted for, no unexplained error",
        seen=f"{exchanges} exchanges, {faults} faults {report.faults}, ends {report.outcomes}; memory {memory}; "
        f"missed: {missed or 'nothing'}",
        ok=report.ok,
        counts={"exchanges": exchanges, "faults": faults, "checks": len(report.checks), "missed": len(missed)},
        seed=SEED,
    )


# ---- the accounts ----------------------------------------------------------------------------------------------------


def memory(seconds: float, start: int, end: int, spike: int = 0) -> Memory:
    """Resident bytes that rise evenly, with a spike at every second sample."""
    steps = 240
    return Memory(
        "relay",
        [(n * seconds / steps, start + (end - start) * n // steps + (spike if n % 2 else 0)) for n in range(steps + 1)],
    )


def test_memory_that_grows_is_noticed() -> None:
    """Also under spikes; a level that is merely high, or a short soak, is no growth."""
    assert not check_memory(memory(600, 80 * MIB, 120 * MIB)).ok
    assert not check_memory(memory(600, 80 * MIB, 120 * MIB, spike=50 * MIB)).ok
    assert check_memory(memory(600, 100 * MIB, 100 * MIB, spike=50 * MIB)).ok
    assert check_memory(memory(600, 100 * MIB, 104 * MIB)).ok
    assert check_memory(memory(10, 50 * MIB, 120 * MIB)).ok
    assert not check_memory(Memory("relay")).ok


def test_memory_may_grow_while_it_warms_up() -> None:
    """The first quarter is not judged."""
    samples = [(float(at), 60 * MIB + min(at, 140) * MIB // 4) for at in range(600)]
    assert check_memory(Memory("relay", samples)).ok


def test_a_descriptor_that_is_left_is_noticed() -> None:
    """One is enough, and what is gone as well."""
    before = {"descriptors": 20, "tasks": 8}
    assert check_baseline("relay", before, dict(before)).ok
    assert not check_baseline("relay", before, {"descriptors": 21, "tasks": 8}).ok
    assert not check_baseline("relay", before, {"descriptors": 20}).ok


def test_a_byte_of_credit_that_is_lost_is_noticed() -> None:
    """On either side, in either direction; and a byte that is held."""
    relay = {"given": 1000, "left": 2000, "held": 0, "waiting": 0}
    agents = [
        {"given": 1500, "left": 400, "held": 0, "waiting": 0},
        {"given": 500, "left": 600, "held": 0, "waiting": 0},
    ]
    assert check_credit(relay, agents).ok
    for name in relay:
        assert not check_credit(relay | {name: relay[name] + 1}, agents).ok
        assert not check_credit(relay, [agents[0] | {name: agents[0][name] + 1}, agents[1]]).ok


@pytest.mark.parametrize(
    ("name", "began", "ended", "outcome", "ok"),
    [
        ("rough", 10.0, 10.1, "agent_lost", True),
        ("rough", 5.0, 30.0, "broke off", True),
        ("rough", 12.5, 12.6, "late", True),
        ("rough", 13.1, 13.2, "agent_lost", False),
        ("rough", 8.0, 9.9, "broke off", False),
        ("rough", 10.0, 10.1, "agent_offline", False),
        ("rough", 10.0, 10.1, "wrong", False),
        ("calm", 10.0, 10.1, "agent_lost", False),
        ("calm", 10.0, 10.1, OK, True),
    ],
)
def test_an_error_needs_a_fault_of_its_own_time_and_path(
    name: str, began: float, ended: float, outcome: str, ok: bool
) -> None:
    """The fault lasts from 10 to 12, and is felt until 13."""
    visits = [Visit(name, "small", began, ended, outcome)]
    assert check_errors(visits, {"rough": [Spell("cut all", 10.0, 12.0)]}).ok is ok


def test_a_load_without_a_kind_is_noticed() -> None:
    """And one that went badly for the most part."""
    well = [Visit(name, kind, 0.0, 1.0, OK) for name in ("calm", "rough") for kind in KINDS]
    assert check_kinds(well, KINDS, ("calm", "rough")).ok
    assert not check_kinds(well[1:], KINDS, ("calm", "rough")).ok
    assert not check_kinds(well + [Visit("rough", "small", 0.0, 1.0, "late")] * 5, KINDS, ("calm", "rough")).ok
