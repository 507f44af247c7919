"""What the compiled build takes for granted of its rooms, since the compiler does not say it (scripts/compiling.py)."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import Any

import pytest

from scripts import compiling

ROOT = Path(__file__).resolve().parents[2]
BUILD = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
CONFIG: dict[str, Any] = BUILD["targets"]["wheel"]["hooks"]["custom"]


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> dict[str, ast.Module]:
    monkeypatch.chdir(ROOT)
    return {name: ast.parse(Path(name).read_text(encoding="utf-8")) for name in compiling.rooms(CONFIG)}


def test_every_room_that_is_named_is_there() -> None:
    """A room that was moved would silently be interpreted."""
    assert [name for name in CONFIG["compiled"] + CONFIG["interpreted"] if not (ROOT / name).exists()] == []


def test_a_caught_error_has_a_name_of_its_own(rooms: dict[str, ast.Module]) -> None:
    """A name has one type in a compiled function: what another `except` binds to it raises TypeError there."""
    found = []
    for room, tree in rooms.items():
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                types: dict[str, set[str]] = {}
                for node in ast.walk(function):
                    if isinstance(node, ast.ExceptHandler) and node.name and node.type:
                        types.setdefault(node.name, set()).add(ast.unparse(node.type))
                found += [(room, function.name, name) for name, several in types.items() if len(several) > 1]
    assert found == []


def test_nothing_that_is_for_all_who_speak_alike_is_none_by_its_class(rooms: dict[str, ast.Module]) -> None:
    """`name: SomeProtocol | None = None` in the body of a class is dropped: there is no such attribute then."""
    everything = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "relay").rglob("*.py"))]
    protocols = {
        node.name
        for tree in everything
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Protocol" for base in node.bases)
    }
    assert "StreamEvents" in protocols
    found = [
        (room, node.name, ast.unparse(line))
        for room, tree in rooms.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and not node.decorator_list
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.value, ast.Constant) and line.value.value is None
        if protocols & {name.id for name in ast.walk(line.annotation) if isinstance(name, ast.Name)}
    ]
    assert found == []


def test_nothing_is_compiled_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable a build needs no compiler and makes the wheel that fits everywhere."""
    monkeypatch.delenv(compiling.VARIABLE, raising=False)
    hook = compiling.Compiling(str(ROOT), CONFIG, None, None, "", "wheel")  # type: ignore[arg-type]
    data: dict[str, Any] = {}
    hook.initialize("standard", data)
    assert (hook.dependencies(), data) == ([], {})


def test_an_editable_install_is_never_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled would stand in the checkout, in front of every change of its source."""
    monkeypatch.setenv(compiling.VARIABLE, "1")
    hook = compiling.Compiling(str(ROOT), CONFIG, None, None, "", "wheel")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="without -e"):
        hook.initialize("editable", {})
