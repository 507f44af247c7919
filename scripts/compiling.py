"""The optional compiled build: with RELAY_COMPILED=1 a wheel holds the rooms of the data path as machine code too.

A hook of hatchling; pyproject.toml names the rooms. mypyc, which comes with mypy, compiles each from the same source,
which stays beside it in the wheel. Python prefers what is compiled. Without the variable the hook does nothing.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "RELAY_COMPILED"
# Another mypy may refuse what this one takes, and an old source is to be built for as long as there are its packages.
MYPYC = "mypy[mypyc]>=2.4,<2.5"


class Compiling(BuildHookInterface[BuilderConfig]):
    """Puts the compiled rooms into a wheel. An editable install has none: they would stand in the checkout."""

    def dependencies(self) -> list[str]:
        """What compiling needs: the compiler, and the packages of the relay, whose types it reads."""
        if not wanted():
            return []
        core = self.metadata.core
        return [MYPYC, *core.dependencies, *core.optional_dependencies["server"]]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles. Raises `ValueError` for an editable install; code that cannot be compiled ends the build."""
        if not wanted():
            return
        if version == "editable":
            raise ValueError(f"{VARIABLE}=1 makes a wheel: install without -e")
        self.place = tempfile.TemporaryDirectory(prefix="relay-compiled-")
        with contextlib.chdir(self.root):
            made = compiled(sorted(rooms(self.config)), Path(self.place.name))
        build_data["force_include"].update({str(file): name for file, name in made})
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes what was made on the way."""
        if wanted():
            self.place.cleanup()


def wanted() -> bool:
    """Whether this build is to be a compiled one."""
    return os.environ.get(VARIABLE) == "1"


def rooms(config: dict[str, Any]) -> set[str]:
    """The files that are compiled, below the working directory, by what pyproject.toml says of them."""
    left = set(config["interpreted"])
    found: set[str] = set()
    for name in config["compiled"]:
        path = Path(name)
        found.update(one.as_posix() for one in (path.glob("*.py") if path.is_dir() else [path]))
    return {one for one in found - left if not one.endswith("/__init__.py")}


def compiled(files: list[str], place: Path) -> list[tuple[Path, str]]:
    """Compiles these files into a directory: what was made, and where it stands in the wheel."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    # One group: rooms call each other directly.
    options = ["--config-file=pyproject.toml", f"--cache-dir={place / 'cache'}", *files]
    modules = mypycify(options, opt_level="3", debug_level="0", group_name="relay", target_dir=str(place / "c"))
    command = build_ext(Distribution({"name": "relay", "ext_modules": modules}))
    command.build_lib = str(place / "lib")
    command.build_temp = str(place / "objects")
    command.ensure_finalized()
    command.run()
    return [(file, file.relative_to(place / "lib").as_posix()) for file in (place / "lib").rglob("*.so")]
