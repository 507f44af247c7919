"""Plans in the settings file, and the amounts that they are written with."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.keys.scopes import LIMITS, MAX_LIMIT, Scope
from relay.settings import SettingsError, load
from relay.settings.amounts import bandwidth_of, size_of, told_bandwidth, told_size
from relay.settings.plans import MEMBERS

HOBBY = Scope(tunnels=3, bandwidth=1_250_000, monthly_requests=20_000)
ALL = """
default_plan = "small"
[plans.small]
tunnels = 1
streams = 50
rate = 10
bandwidth = "10 Mbit/s"
body = "10MiB"
requests = 20000
bytes = "5GiB"
[plans.large]
bandwidth = 1000000
body = 4096
bytes = 1000
[plans.free]
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "relay.toml"
    path.write_text(text, encoding="utf-8")
    return path


def mistake(tmp_path: Path, text: str) -> str:
    with pytest.raises(SettingsError) as error:
        load({}, {}, written(tmp_path, text))
    said = str(error.value)
    assert "\n" not in said
    assert said.endswith((".", "?"))
    return said


def test_a_hobby_plan_comes_along() -> None:
    """It limits nobody until it is given to a project or made the default."""
    settings = load({}, {})
    assert (dict(settings.plans), settings.default_plan) == ({"hobby": HOBBY}, None)
    assert load({"default_plan": "hobby"}, {}).default_plan == "hobby"
    assert load({}, {"RELAY_DEFAULT_PLAN": "hobby"}).default_plan == "hobby"


def test_plans_of_the_file_stand_beside_it(tmp_path: Path) -> None:
    """With every limit there is, in numbers or in words; what is left out is not limited."""
    settings = load({}, {}, written(tmp_path, ALL))
    assert dict(settings.plans) == {
        "hobby": HOBBY,
        "small": Scope(("*",), 1, 10, 1_250_000, 50, 10 * 2**20, 20_000, 5 * 2**30),
        "large": Scope(bandwidth=1_000_000, body=4096, monthly_bytes=1000),
        "free": Scope(),
    }
    assert settings.default_plan == "small"
    assert {member.limit for member in MEMBERS.values()} == set(LIMITS)


def test_the_hobby_plan_may_be_another_one(tmp_path: Path) -> None:
    """A table of its name takes its place, whole."""
    assert load({}, {}, written(tmp_path, "[plans.hobby]\nrate = 1")).plans["hobby"] == Scope(rate=1)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("tunnels", "0"),
        ("tunnels", "-1"),
        ("tunnels", "true"),
        ("streams", '"3"'),
        ("rate", "1.5"),
        ("requests", str(MAX_LIMIT + 1)),
        ("requests", "[1]"),
        ("bandwidth", '"fast"'),
        ("bandwidth", '"1 bit/s"'),
        ("bandwidth", '"10 parsecs/s"'),
        ("bandwidth", "1.5"),
        ("body", '"10 Mbit"'),
        ("body", '"-1"'),
        ("body", "{}"),
        ("bytes", "false"),
        ("bytes", '""'),
    ],
)
def test_a_wrong_limit_is_named_with_its_table(tmp_path: Path, member: str, value: str) -> None:
    """And with what would be right, which is."""
    said = mistake(tmp_path, f"[plans.small]\n{member} = {value}")
    assert said.startswith(f"{member} ([plans.small] in {tmp_path}/relay.toml) must be ")
    example = MEMBERS[member].example
    assert f"for example {member} = {example}, but it is " in said
    limit = getattr(
        load({}, {}, written(tmp_path, f"[plans.small]\n{member} = {example}")).plans["small"], MEMBERS[member].limit
    )
    assert limit > 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("plans = 3", "must be tables"),
        ("[plans]\nsmall = 3", "plans.small (in "),
        ("[plans.small]\ntunels = 3", "tunels ([plans.small] in "),
        ("[plans.small]\ntunels = 3", "did you mean tunnels?"),
        ("[plans.small]\nnames = ['a']", "names ([plans.small] in "),
        ("[plans.Small]", "plans.Small (in "),
        ("[plans.none]", "plans.none (in "),
        ('[plans."a b"]', "must be named by"),
        ("[plan.small]", "did you mean plans?"),
        ('default_plan = "big"', "must be one of the plans that there are (hobby)"),
        ('default_plan = "big"\n[plans.small]', "for example [plans.big]"),
    ],
)
def test_what_is_no_plan(tmp_path: Path, text: str, words: str) -> None:
    """Each mistake in one sentence."""
    assert words in mistake(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        (7, 7), ("7", 7), ("7b", 7), ("1k", 1024), ("1 KiB", 1024), ("1.5MiB", 1_572_864), ("2G", 2**31),
        ("1TiB", 2**40), ("10MB", 10**7), ("1 kB", 1000),
    ],
)  # fmt: skip
def test_sizes(text: object, amount: int) -> None:
    """Binary by name, decimal by name, bare ones binary."""
    assert size_of(text) == amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        (7, 7), ("8", 8), ("8 bit/s", 1), ("10 Mbit/s", 1_250_000), ("10Mbit", 1_250_000), ("1gbit/s", 125_000_000),
        ("2.5 Mbit/s", 312_500), ("1MiB/s", 2**20), (" 1 MiB / s".replace(" / ", "/"), 2**20), ("100 kB/s", 100_000),
    ],
)  # fmt: skip
def test_bandwidths(text: object, amount: int) -> None:
    """In bits where it says so, else in bytes."""
    assert bandwidth_of(text) == amount


@pytest.mark.parametrize(
    "value", [None, True, 1.5, "", "x", "1 2", "-1", "1.2345", "1e3", "1.5", "٣", "1/s/s", [], "1kbits"]
)
def test_what_is_no_amount(value: object) -> None:
    """Is a ValueError of both."""
    for read in (size_of, bandwidth_of):
        with pytest.raises(ValueError):  # noqa: PT011 - it has no text
            read(value)


@given(
    st.integers(1, 2**49) | st.integers(1, 999).flatmap(lambda n: st.sampled_from([n * 2**20, n * 125_000, n * 1000]))
)
def test_what_is_told_can_be_read(amount: int) -> None:
    """The same amount, so that a line of the output may be typed in again."""
    assert size_of(told_size(amount)) == amount
    assert bandwidth_of(told_bandwidth(amount)) == amount


@pytest.mark.parametrize(
    ("amount", "size", "bandwidth"),
    [
        (1, "1 byte", "8 bit/s"), (1_250_000, "1250000 bytes", "10 Mbit/s"), (2**20, "1 MiB", "1 MiB/s"),
        (5 * 2**30, "5 GiB", "5 GiB/s"), (125_000_000, "125000000 bytes", "1 Gbit/s"),
        (1500, "1500 bytes", "12 kbit/s"),
    ],
)  # fmt: skip
def test_how_amounts_are_told(amount: int, size: str, bandwidth: str) -> None:
    """In the largest unit that leaves nothing out."""
    assert (told_size(amount), told_bandwidth(amount)) == (size, bandwidth)
