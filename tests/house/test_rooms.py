"""Every room is small enough to see at once and says first what its rule is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = sorted((ROOT / "relay").rglob("*.py"))
MOST_LINES = 350
MOST_LINES_OF_A_FUNCTION = 60
MOST_ARGUMENTS = 5

# (room, function): why it may be longer than a screen. A list may be long; logic may not.
LONG_FUNCTIONS = {
    ("relay/cli/http.py", "http"): "Typer reads a command's options from its signature",
}
# (room, function): why a typed bag would say less than its arguments.
MANY_ARGUMENTS = {
    ("relay/cli/http.py", "http"): "Typer reads a command's options from its signature",
    ("relay/cli/start.py", "start"): "Typer reads a command's options from its signature",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(room: Path) -> str:
    return room.relative_to(ROOT).as_posix()


def functions(room: Path) -> Iterator[tuple[Function, bool]]:
    """Every function of a room, and whether its first argument is `self` or `cls`."""
    tree = ast.parse(room.read_text(encoding="utf-8"))
    methods = {id(item) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for item in node.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            static = any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in node.decorator_list)
            yield node, id(node) in methods and not static


@pytest.mark.parametrize("room", ROOMS, ids=name_of)
def test_room_fits_on_a_few_screens(room: Path) -> None:
    """A file has at most 350 lines."""
    lines = len(room.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES


@pytest.mark.parametrize("room", ROOMS, ids=name_of)
def test_room_states_its_rule_first(room: Path) -> None:
    """The first statement of a file that holds anything is its docstring, of more than a word or two."""
    tree = ast.parse(room.read_text(encoding="utf-8"))
    if tree.body:
        assert len((ast.get_docstring(tree) or "").split()) >= 4


@pytest.mark.parametrize("room", ROOMS, ids=name_of)
def test_no_function_is_longer_than_a_screen(room: Path) -> None:
    """A function has at most 60 lines, decorators aside."""
    for function, _ in functions(room):
        if (name_of(room), function.name) not in LONG_FUNCTIONS:
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            assert lines <= MOST_LINES_OF_A_FUNCTION, f"{function.name} has {lines} lines"


@pytest.mark.parametrize("room", ROOMS, ids=name_of)
def test_no_function_takes_more_than_five_arguments_by_position(room: Path) -> None:
    """A sixth argument belongs into a typed bag, or behind the star that makes the caller name it."""
    for function, bound in functions(room):
        if (name_of(room), function.name) in MANY_ARGUMENTS:
            continue
        arguments = len(function.args.posonlyargs) + len(function.args.args) - bound
        assert arguments <= MOST_ARGUMENTS, f"{function.name} takes {arguments} arguments by position"


def test_no_room_is_a_drawer_for_odds_and_ends() -> None:
    """There is no utils.py, helpers.py, common.py or misc.py: a thing lives where its rule is."""
    assert [name_of(room) for room in ROOMS if room.stem in {"utils", "util", "helpers", "common", "misc"}] == []


def test_exceptions_to_the_rules_are_still_needed() -> None:
    """An allow-listed function exists and still breaks the rule that it is excused from."""
    seen = {(name_of(room), function.name): function for room in ROOMS for function, _ in functions(room)}
    for entry in LONG_FUNCTIONS:
        function = seen[entry]
        assert (function.end_lineno or 0) - function.lineno + 1 > MOST_LINES_OF_A_FUNCTION, entry
    for entry in MANY_ARGUMENTS:
        assert len(seen[entry].args.posonlyargs) + len(seen[entry].args.args) > MOST_ARGUMENTS, entry
