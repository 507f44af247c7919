"""The pages about the commands say what the commands do: every option, variable, default, event and exit code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from relay.agent.config import Exit
from relay.cli import app
from relay.cli.http_lines import REFUSALS, People
from relay.settings import SETTINGS, Setting, load

DOCS = Path(__file__).resolve().parents[2] / "docs"
AGENT = (DOCS / "agent.md").read_text(encoding="utf-8")
OPERATING = (DOCS / "operating.md").read_text(encoding="utf-8")


def options(name: str) -> set[str]:
    """The options of a command, as its own parser knows them."""
    group = typer.main.get_command(app)
    command = group.get_command(None, name)  # type: ignore[attr-defined]
    return {word for one in command.params for word in one.opts if word.startswith("-")} | {"--help", "-h"}


def rows(page: str, heading: str) -> dict[str, str]:
    """The first column of the first table under a heading, with the rest of each row."""
    section = re.split(rf"^## {re.escape(heading)}$", page, flags=re.MULTILINE)[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
    return {line.split("|")[1].strip(): line.split("|", 2)[2] for line in lines}


def test_every_option_of_the_agent_is_described() -> None:
    """The table of options has each option of `relay http`, and none that does not exist."""
    described = set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", " ".join(rows(AGENT, "Options"))))
    assert described == options("http")


@pytest.mark.parametrize("one", SETTINGS, ids=lambda one: one.name)
def test_every_setting_is_described_with_its_default(one: Setting) -> None:
    """The table of settings has each setting, with the default that the code has."""
    row = rows(OPERATING, "Settings")[f"`{one.name}`"]
    names, default = (cell.strip() for cell in row.split("|")[:2])
    assert names == ", ".join(f"`{name}`" for name in (one.flag, one.environment) if name)
    if one.default:
        assert default == f"`{one.default}`"


def test_no_setting_is_described_that_does_not_exist() -> None:
    """Table and code have the same names; the options that are no settings are in the text."""
    assert set(rows(OPERATING, "Settings")) == {f"`{one.name}`" for one in SETTINGS}
    for option in options("serve") - {one.flag for one in SETTINGS}:
        assert f"`{option}" in OPERATING


def test_the_file_that_is_shown_is_accepted(tmp_path: Path) -> None:
    """The example of a settings file can be copied."""
    [example] = re.findall(r"```toml\n(.*?)```", OPERATING, re.DOTALL)
    path = tmp_path / "relay.toml"
    path.write_text(example, encoding="utf-8")
    assert load({}, {}, path).domain == "tunnels.example.com"


def test_every_exit_code_is_described() -> None:
    """The agent's exit codes and the table are the same, but for the shell's own 130."""
    assert set(rows(AGENT, "Exit codes")) == {str(int(code)) for code in Exit} | {"130"}


def test_every_event_for_people_is_described() -> None:
    """What has a line of its own has a row, and every refusal with a next step is named."""
    described = {name.strip("`") for name in rows(AGENT, "Events")}
    assert set(People.TELLS) <= described
    for code in REFUSALS:
        assert f"`{code}`" in AGENT
