"""What a soak saw, and whether it is as it must be: memory, descriptors, tasks, credit, and every error explained.

Pure: samples and counts in, sentences out. Each check says what it asks for, so that its row can be read alone.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.soak.visits import OK, Visit
from tests.soak.weather import Spell

EXPLAINED = frozenset(("agent_lost", "broke off", "late"))
"""What a fault may do to an exchange. Not `agent_offline`: who comes while an agent is away waits for it."""
WARM_UP = 0.25
"""The share of a soak after which memory must not grow any more."""
JUDGED_FROM = 120.0
"""A soak shorter than this, in seconds, says nothing about growth."""
GROWTH_BYTES = 6 * 2**20
GROWTH_SHARE = 0.05
"""Resident memory may grow by the greater of these, over all that comes after the warm-up."""
PIECES = 12


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold."""

    name: str
    asked: str
    seen: str
    ok: bool


@dataclass
class Memory:
    """Resident bytes of one process, by the seconds since the load began."""

    process: str
    samples: list[tuple[float, int]] = field(default_factory=list)

    def floors(self) -> list[tuple[float, int]]:
        """After the warm-up: the least of each of so many equal pieces of time, and the middle of that piece.

        What is resident for a moment only, a large body on its way say, is not what grows.
        """
        if not self.samples:
            return []
        end = self.samples[-1][0]
        start, width = end * WARM_UP, end * (1 - WARM_UP) / PIECES
        found = []
        for number in range(PIECES):
            low = start + number * width
            inside = [size for at, size in self.samples if low <= at <= low + width]
            if inside:
                found.append((low + width / 2, min(inside)))
        return found

    def growth(self) -> float:
        """Bytes by which a straight line through the floors rises from the first to the last of them."""
        floors = self.floors()
        if len(floors) < 2:
            return 0.0
        slope = statistics.linear_regression([at for at, _ in floors], [float(size) for _, size in floors]).slope
        return slope * (floors[-1][0] - floors[0][0])


def check_memory(memory: Memory) -> Check:
    """Flat after the warm-up."""
    floors = [size for _, size in memory.floors()]
    if not floors:
        return Check(f"memory of the {memory.process}", "at least one sample", "none", ok=False)
    allowed = max(GROWTH_BYTES, GROWTH_SHARE * statistics.median(floors))
    judged = memory.samples[-1][0] >= JUDGED_FROM
    grown = memory.growth()
    return Check(
        f"memory of the {memory.process}",
        f"grows by at most {allowed / 2**20:.1f} MiB after the first {WARM_UP:.0%}"
        + ("" if judged else f" (not judged below {JUDGED_FROM:g} s)"),
        f"{floors[0] / 2**20:.1f} → {floors[-1] / 2**20:.1f} MiB, a line through it rises by {grown / 2**20:+.1f} MiB",
        ok=not judged or grown <= allowed,
    )


def check_baseline(name: str, before: Mapping[str, int], after: Mapping[str, int]) -> Check:
    """Everything counted is what it was before the load."""
    changed = {each: (before[each], after.get(each)) for each in before if before[each] != after.get(each)}
    seen = ", ".join(f"{each} {was} → {now}" for each, (was, now) in changed.items()) or f"all {len(before)} are"
    return Check(f"{name} at rest", "as before the load: " + ", ".join(before), seen, ok=not changed)


def check_credit(relay: Mapping[str, int], agents: Sequence[Mapping[str, int]]) -> Check:
    """What each side believes it may send is what the other believes to have granted, and nothing is held or waits."""
    left, given = sum(one["left"] for one in agents), sum(one["given"] for one in agents)
    rest = relay["held"] + relay["waiting"] + sum(one["held"] + one["waiting"] for one in agents)
    return Check(
        "flow-control credit",
        "both sides count the same, each way; nothing is held or waits",
        f"to the relay {relay['given']} granted, {left} known; to the agents {given} granted, {relay['left']} known; "
        f"{rest} bytes held or waiting",
        ok=(relay["given"], relay["left"], rest) == (left, given, 0),
    )


def check_errors(visits: Sequence[Visit], spells: Mapping[str, Sequence[Spell]]) -> Check:
    """Every error was a fault's."""
    errors = [visit for visit in visits if visit.outcome != OK]
    unexplained = [visit for visit in errors if not explained(visit, spells.get(visit.name, ()))]
    counted = ", ".join(f"{count} {what}" for what, count in Counter(visit.outcome for visit in errors).most_common())
    shown = "; ".join(
        f"{visit.name} {visit.kind}: {visit.outcome} after {visit.ended - visit.began:.2f} s {visit.detail}"
        for visit in unexplained[:5]
    )
    return Check(
        "errors that visitors saw",
        "each at the time of a fault on its own path, and of a kind that a fault may cause",
        f"{counted or 'none'} in {len(visits)} exchanges; without an explanation: {len(unexplained)} {shown}".strip(),
        ok=not unexplained,
    )


def explained(visit: Visit, spells: Sequence[Spell]) -> bool:
    """Whether a fault may have been the reason."""
    return visit.outcome in EXPLAINED and any(spell.covers(visit.began, visit.ended) for spell in spells)


def check_kinds(visits: Sequence[Visit], kinds: Sequence[str], names: Sequence[str]) -> Check:
    """The load was what it should be: every kind went well at every name, and most exchanges did."""
    well = Counter((visit.name, visit.kind) for visit in visits if visit.outcome == OK)
    missing = [f"{name} {kind}" for name in names for kind in kinds if not well[name, kind]]
    share = sum(well.values()) / max(len(visits), 1)
    return Check(
        "the load",
        "every kind of exchange went well at every name, and at least 8 in 10 of all",
        f"{share:.1%} of {len(visits)} went well" + (f"; none of: {', '.join(missing)}" if missing else ""),
        ok=not missing and share >= 0.8,
    )
