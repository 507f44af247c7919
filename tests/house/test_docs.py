"""The documents say what the program does: its version, its options, its settings, its errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import relay
from relay.cli import app
from relay.edge.answers import TABLE
from relay.settings import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# Where the options of each command are documented.
PAGES = {"serve": "operating.md", "http": "agent.md"}


def text_of(path: Path) -> str:
    assert path.exists(), f"{path.relative_to(ROOT)} is missing"
    return path.read_text(encoding="utf-8")


def options_of(command: str) -> list[str]:
    commands: dict[str, Any] = getattr(typer.main.get_command(app()), "commands")  # noqa: B009 - click's, not Typer's type
    return [option for parameter in commands[command].params for option in parameter.opts if option.startswith("--")]


def mentions(text: str, option: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text) is not None


def test_the_changelog_opens_with_this_version() -> None:
    """The newest entry of the changelog is the version that the package says it is."""
    newest = re.search(r"^## \[([^\]]+)\]", text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == relay.__version__


@pytest.mark.parametrize("command", PAGES)
def test_every_option_is_documented(command: str) -> None:
    """Each option of a command stands on the page of that command."""
    options = options_of(command)
    assert len(options) > 5
    text = text_of(DOCS / PAGES[command])
    assert [option for option in options if not mentions(text, option)] == []


@pytest.mark.parametrize("command", PAGES)
def test_no_page_speaks_of_an_option_that_is_gone(command: str) -> None:
    """An option in a command line of the pages, `relay COMMAND … --option`, exists."""
    known = {*options_of(command), "--help"}
    pages = [ROOT / "README.md", *DOCS.glob("*.md")]
    lines = [line for page in pages for line in text_of(page).replace("\\\n", " ").splitlines()]
    used = {option for line in lines for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", calls(line, command))}
    assert used
    assert used <= known


def calls(line: str, command: str) -> str:
    """What follows `relay COMMAND` on a line, up to the next code mark or comment."""
    found = re.search(rf"\b(?:relay|mytunnel) {command}\b([^`#|]*)", line)
    return found[1] if found else ""


def test_every_setting_is_documented() -> None:
    """Each variable of the environment that `relay serve` reads stands on the operator's page."""
    text = text_of(DOCS / "operating.md")
    assert [one.environment for one in SETTINGS if not re.search(rf"\b{one.environment}\b", text)] == []


@pytest.mark.parametrize("code", TABLE, ids=str)
def test_every_error_is_documented(code: Any) -> None:
    """Each error stands in the table of docs/promises.md, in a row that begins with its status and code."""
    row = rf"^\| *{TABLE[code].status} *\| *`{code}` *\|"
    assert re.search(row, text_of(DOCS / "promises.md"), re.MULTILINE), f"no row | {TABLE[code].status} | `{code}` | …"


def test_pages_link_to_pages_that_exist() -> None:
    """Every relative link between the pages leads to a file."""
    missing = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.glob("*.md")]
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text_of(page))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert missing == []


def compose(path: str) -> Any:
    return yaml.safe_load(text_of(ROOT / path))


def first_cells(heading: str) -> set[str]:
    """What stands in code marks in the first column of all tables below a heading of docs/operating.md."""
    section = re.split(rf"^## {heading}$", text_of(DOCS / "operating.md"), flags=re.MULTILINE)[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_the_compose_file_is_described() -> None:
    """Each of its variables, profiles and volumes stands in a table, and nothing else does."""
    variables = set(re.findall(r"\$\{([A-Z_]+)", text_of(ROOT / "docker-compose.yaml")))
    whole = compose("docker-compose.yaml")
    profiles = {name for one in whole["services"].values() for name in one.get("profiles", ())}
    assert first_cells("On a server with Docker Compose") == variables | profiles | set(whole["volumes"])


def test_the_variables_of_the_wildcard_are_described() -> None:
    """Those for a certificate by the DNS."""
    for name in re.findall(r"\$\{([A-Z_]+)", text_of(ROOT / "deploy/caddy/wildcard.yaml")):
        assert f"`{name}`" in text_of(DOCS / "operating.md")


def anchors(page: Path) -> set[str]:
    """What can be linked to on a page: its headings, in the form that hosts of repositories give them."""
    text = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_to_headings_that_exist() -> None:
    """Every link to a place on a page finds it there."""
    missing = []
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.glob("*.md")]:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", text_of(page)):
            if "://" not in target and anchor not in anchors(page.parent / target if target else page):
                missing.append(f"{page.relative_to(ROOT)}: {target}#{anchor}")
    assert missing == []
