"""The profile: the ten functions of each side that cost most, before and now, out of what is counted."""

from __future__ import annotations

import dataclasses

from bench import profile
from bench.cost import budget, scripts
from bench.profile import Profile
from bench.results import Results


def test_the_record_of_before_is_whole() -> None:
    """Ten functions of each side, each of its own side, the most expensive first, and a total for every script."""
    old = profile.before()
    assert old.of
    assert old.totals.keys() == scripts.SCRIPTS.keys()
    for side, other in (("relay", "agent"), ("agent", "edge")):
        counts = [bytecodes for _name, bytecodes, _calls in old.top[side]]
        assert len(counts) == profile.TOP
        assert counts == sorted(counts, reverse=True)
        assert sum(counts) < old.totals[profile.SCRIPT][side]
        assert not [name for name, _bytecodes, _calls in old.top[side] if name.startswith(f"relay.{other}.")]


def test_what_is_taken_survives_a_run_and_is_shown_beside_the_record() -> None:
    """Now stands beside before, function by function and script by script, also when it was read from a file."""
    cost = budget.Cost.of(scripts.run(profile.SCRIPT), scripts.SCRIPTS[profile.SCRIPT].units)
    new = profile.of_costs({profile.SCRIPT: cost})
    results = Results(profile=dataclasses.asdict(new))
    again = Profile(**Results.from_json(results.to_json()).profile)
    text = profile.render(profile.before(), again)
    assert text == profile.render(profile.before(), new)
    assert f"{cost.totals['bytecodes']['relay']:,.0f}" in text
    for side in ("relay", "agent"):
        name, bytecodes, _calls = new.top[side][0]
        assert bytecodes == max(n for one, n in cost.functions["bytecodes"].items() if one.startswith(side))
        assert f"`{name.removeprefix('relay.')}` | {bytecodes:,.1f} |" in text
