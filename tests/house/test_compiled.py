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


def test_what_is_tested_is_compiled_by_what_builds() -> None:
    """The compiler of a build's own environment is the one of `make test-compiled`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert compiling.MYPYC in project["optional-dependencies"]["dev"]


def test_every_room_that_is_named_is_there() -> None:
    """A room that was moved would silently be interpreted."""
    assert [name for name in CONFIG["compiled"] + CONFIG["interpreted"] if not (ROOT / name).exists()] == []


def test_a_compiled_class_is_made_from_compiled_ones(rooms: dict[str, ast.Module]) -> None:
    """From another one it would inherit by look-ups in dictionaries, for all that it does."""
    found = []
    for room, tree in rooms.items():
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        homes = {alias.asname or alias.name: str(node.module) for node in imports for alias in node.names}
        for made in [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]:
            bases = [homes.get(ast.unparse(base), "") for base in made.bases]
            found += [(room, made.name, base) for base in bases if base.startswith("relay.")]
    assert [one for one in found if one[2].replace(".", "/") + ".py" not in rooms] == []
    assert ("relay/edge/connection.py", "Connection", "relay.mux.paced") in found


def test_an_attribute_is_declared_once(rooms: dict[str, ast.Module]) -> None:
    """Declared again below, the garbage collector counts it twice, and never frees a circle that goes through it."""
    classes = {node.name: node for tree in rooms.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}

    def above(name: str) -> list[str]:
        bases = [base for base in map(ast.unparse, classes[name].bases) if base in classes]
        return bases + [one for base in bases for one in above(base)]

    declared = {name: attributes(node) for name, node in classes.items()}
    assert "owner" in declared["SendingHalf"]
    found = {(name, base): declared[name] & declared[base] for name in classes for base in above(name)}
    assert {pair: twice for pair, twice in found.items() if twice} == {}


def attributes(node: ast.ClassDef) -> set[str]:
    """Those that a class declares: in its body, or with their type in a method."""
    typed = {line.target for line in ast.walk(node) if isinstance(line, ast.AnnAssign)}
    body = {target for line in node.body if isinstance(line, ast.Assign) for target in line.targets}
    body |= {line.target for line in node.body if isinstance(line, ast.AnnAssign)}
    own = {target.attr for target in typed if isinstance(target, ast.Attribute)}
    return own | {target.id for target in body if isinstance(target, ast.Name)} - {"__slots__"}


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
