"""The pages about the commands say what the commands do: every option, variable, default, event and exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from relay.agent.config import Exit
from relay.cli import app, errors
from relay.cli.http_lines import REFUSALS, People
from relay.cli.tunnelfile import MEMBERS, OF_A_TUNNEL, TunnelReader
from relay.keys.scopes import Scope
from relay.node.accesslines import as_json
from relay.settings import SETTINGS, Setting, load
from relay.settings.plans import MEMBERS as LIMITS

DOCS = Path(__file__).resolve().parents[2] / "docs"
AGENT = (DOCS / "agent.md").read_text(encoding="utf-8")
OPERATING = (DOCS / "operating.md").read_text(encoding="utf-8")


def options(name: str) -> set[str]:
    """The options of a command, as its own parser knows them."""
    group = typer.main.get_command(app())
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
    first, plans = re.findall(r"```toml\n(.*?)```", OPERATING, re.DOTALL)
    path = tmp_path / "relay.toml"
    path.write_text(first, encoding="utf-8")
    assert load({}, {}, path).domain == "tunnels.example.com"
    path.write_text(plans, encoding="utf-8")
    settings = load({}, {}, path)
    assert settings.plans[settings.default_plan or ""] == Scope(
        tunnels=1, streams=50, rate=10, bandwidth=250_000, body=10 * 2**20, monthly_requests=5000, monthly_bytes=2**30
    )


def test_the_file_of_tunnels_that_is_shown_is_accepted(tmp_path: Path) -> None:
    """It can be copied, and shows every member that there is."""
    (text,) = re.findall(r"```yaml\n(.*?)```", AGENT, re.DOTALL)
    for name, content in (("relay.yaml", text), ("people.txt", "ada:s3cret\n"), ("fields.txt", "X-Key: s3cret\n")):
        path = tmp_path / name
        path.touch(mode=0o600)
        path.write_text(content, encoding="utf-8")
    said = TunnelReader(tmp_path / "relay.yaml").read()
    assert [(one.name, one.target.url) for one in said.tunnels] == [
        ("mcp-me", "http://127.0.0.1:3000"),
        ("shop", "http://127.0.0.1:8000"),
    ]
    assert set(re.findall(r"^ *([a-z_]+):", text, re.MULTILINE)) == {*MEMBERS, *OF_A_TUNNEL, "shop"}


class Everything(dict[str, object]):
    """A record of the access log in which nothing is missing."""

    def get(self, key: str, default: object = None) -> object:
        return super().get(key, b"x")


def test_every_member_of_the_access_log_is_described() -> None:
    """The table has each that a line of JSON can have, and no other."""
    known = dict.fromkeys(("now", "status", "bytes_in", "bytes_out", "duration", "first_byte"), 1) | {"ended": "cut"}
    line = json.loads(as_json(Everything(known)))
    described = {name for cell in rows(OPERATING, "Logs") for name in re.findall(r"`([a-z_]+)`", cell)}
    assert described == set(line)


def test_every_limit_of_a_plan_is_described() -> None:
    """Each has a row in the table of plans, and no other."""
    assert list(rows(OPERATING, "Plans")) == [f"`{member}`" for member in LIMITS]


def test_every_exit_code_is_described() -> None:
    """The agent's exit codes and the table are the same, but for the shell's own 130."""
    assert set(rows(AGENT, "Exit codes")) == {str(int(code)) for code in Exit} | {"130"}


def test_every_event_for_people_is_described() -> None:
    """What has a line of its own has a row, and every refusal with a next step is named."""
    described = {name.strip("`") for name in rows(AGENT, "Events")}
    assert set(People.TELLS) <= described
    for code in REFUSALS:
        assert f"`{code}`" in AGENT


# ---------------------------------------------------------------------------------------------------- docs/commands.md

COMMANDS = (DOCS / "commands.md").read_text(encoding="utf-8")
SHARED = {"--relay", "--key-file", "--insecure", "--json", "--help", "-h"}
GROUPS = ("projects", "keys", "subdomains", "tunnels", "audit", "signers")


def commands_of(name: str) -> dict[str, Any]:
    """The commands of a group."""
    group = typer.main.get_command(app())
    return dict(group.get_command(None, name).commands)  # type: ignore[attr-defined]


def section(heading: str) -> str:
    """The text under a heading of the second rank."""
    return re.split(rf"^## {re.escape(heading)}$", COMMANDS, flags=re.MULTILINE)[1].split("\n## ")[0]


@pytest.mark.parametrize("name", GROUPS)
def test_every_command_of_a_group_is_described_with_its_options(name: str) -> None:
    """Each has a row, and each option of its own stands in the section of its group, or with what every one has."""
    text = section(name) + section("projects")
    for each, command in commands_of(name).items():
        assert re.search(rf"^\| `relay {name} {each}\b", text, re.MULTILINE), f"relay {name} {each}"
        own = {word for one in command.params for word in one.opts if word.startswith("--")}
        assert SHARED - {"--help", "-h"} <= own, f"relay {name} {each} lacks a shared option"
        missing = [option for option in own - SHARED if not re.search(rf"`{option}\b", text)]
        assert missing == [], f"relay {name} {each}"


def test_the_commands_of_services_are_described_with_their_options() -> None:
    """They ask no relay, so they have none of the options that all others share."""
    text = section("service")
    for each, command in commands_of("service").items():
        assert f"| `relay service {each}` |" in text
        own = {word for one in command.params for word in one.opts if word.startswith("--")} - SHARED
        assert [option for option in own if f"`{option}" not in text] == []


@pytest.mark.parametrize("name", ["login", "whoami", "token", "usage", "plans", "doctor"])
def test_every_command_alone_is_described_with_its_options(name: str) -> None:
    """The same for the commands that are in no group."""
    assert options(name) >= SHARED
    for option in options(name) - SHARED:
        assert f"`{option}" in COMMANDS, f"relay {name} {option}"
    assert f"`relay {name}" in COMMANDS


def test_no_option_of_commands_is_described_that_does_not_exist() -> None:
    """Whatever the page names, some command has."""
    known = {word for name in GROUPS for one in commands_of(name).values() for each in one.params for word in each.opts}
    known |= {word for one in commands_of("service").values() for each in one.params for word in each.opts}
    alone = ("login", "token", "http", "usage", "doctor", "serve")
    known |= {"--version", "--help", "-h"}.union(*(options(name) for name in alone))
    named = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", " ".join(re.findall(r"`(-[^`]*)`", COMMANDS))))
    assert named <= known


def test_every_exit_code_of_commands_is_described() -> None:
    """The table and the code have the same numbers, but for success and the shell's own."""
    codes = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    assert set(rows(COMMANDS, "Exit codes")) == {str(code) for code in codes} | {"0", "130"}
