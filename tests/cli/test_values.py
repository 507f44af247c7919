"""Plain values of the command line: the same as Typer makes, and nothing of pydantic's loaded for them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from relay.cli.values import make_plain_ones_here

INTEGERS = ("0", "5", "-3", "05", "+5", "-0", "1_000", " 5", "5.0", "1e3", "٣", "x", "", "9" * 17, "9" * 30)
TEXTS = ("", "a", "ä b", "-", "x" * 5000, "\udcff")
PATHS = ("", ".", "a/b", "/no/where", "/etc/passwd", "~", "ä", "\udcff")
CASES = [(int, one) for one in INTEGERS] + [(str, one) for one in TEXTS] + [(Path, one) for one in PATHS]


def takes(kind: Any) -> Callable[..., None]:
    """A command with an option of this kind, one with a default, several, and an argument."""

    def command(
        given: Annotated[kind | None, typer.Argument()] = None,
        one: Annotated[kind | None, typer.Option()] = None,
        small: Annotated[int, typer.Option(min=2)] = 2,
        many: Annotated[list[str] | None, typer.Option()] = None,
        flag: Annotated[bool, typer.Option("--flag")] = False,
    ) -> None:
        SEEN.append((given, one, small, many, flag))

    command.__annotations__ |= {
        "given": Annotated[kind | None, typer.Argument()],
        "one": Annotated[kind | None, typer.Option()],
    }
    return command


SEEN: list[tuple[object, ...]] = []


def outcome(kind: Any, words: list[str], *, here: bool) -> object:
    """What a command that takes this kind saw, or what was complained of."""
    return said_by(takes(kind), words, here=here)


def said_by(command: Callable[..., None], words: list[str], *, here: bool) -> object:
    """What it saw, or what was complained of."""
    app = typer.Typer(add_completion=False)
    app.command()(command)
    made = typer.main.get_command(app)
    if here:
        made = make_plain_ones_here(made, ["--help"])
    SEEN.clear()
    try:
        made(args=words, prog_name="x", standalone_mode=False)
    except typer.TyperException as error:
        return type(error), error.format_message()
    return [(one, type(one)) for one in SEEN[0]]


@pytest.mark.parametrize(("kind", "text"), CASES, ids=repr)
def test_values_are_those_of_typer(kind: Any, text: str) -> None:
    """Whatever is typed: the value, its type, and the words of a complaint."""
    for words in (["--one", text], ["--", text], ["--many", text, "--many", "b"], ["--small", text, "--flag"]):
        assert outcome(kind, words, here=True) == outcome(kind, words, here=False), words


@pytest.mark.parametrize("kind", [int, str, Path])
def test_what_is_left_out_is_as_typer_has_it(kind: Any) -> None:
    """Defaults too."""
    assert outcome(kind, [], here=True) == outcome(kind, [], here=False)


def test_a_path_that_cannot_be_read_is_left_to_typer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It complains of it, in its words."""
    monkeypatch.setattr("os.access", lambda *_: False)
    complaint = outcome(Path, ["--one", "/etc"], here=True)
    assert complaint == outcome(Path, ["--one", "/etc"], here=False)
    assert "not readable" in str(complaint)


@pytest.mark.parametrize("unreadable", [False, True])
@pytest.mark.parametrize(
    ("denied", "path", "complaint"),
    [("file_okay", "/etc/passwd", "is a file"), ("dir_okay", "/etc", "is a directory"), ("readable", "/etc", "")],
)
def test_a_path_of_which_something_is_denied_is_left_to_typer(
    denied: str, path: str, complaint: str, unreadable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it may be a file, or a directory, or must be readable."""
    if unreadable:
        monkeypatch.setattr("os.access", lambda *_: False)

    def command(one: Path) -> None:
        SEEN.append((one,))

    rules: dict[str, Any] = {denied: False}
    command.__annotations__["one"] = Annotated[Path, typer.Option(**rules)]
    said = said_by(command, ["--one", path], here=True)
    assert said == said_by(command, ["--one", path], here=False)
    assert complaint in str(said)


PROGRAM = """
import sys, typer
from relay.cli.values import make_plain_ones_here
def command(a: int = 1, b: str = "x", c: list[str] | None = None, d: bool = False): print(a, b, c, d)
app = typer.Typer(add_completion=False)
app.command()(command)
make_plain_ones_here(typer.main.get_command(app), ["--help"])(args=["--a", "2", "--c", "y"], standalone_mode=False)
sys.exit("pydantic" in sys.modules)
"""


def test_pydantic_is_not_loaded() -> None:
    """Which is what the room is for: a new Typer may have another inside."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("2 x ['y'] False\n", "", 0)
