"""How much memory a process may have, as control groups of both versions say it; how much it has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from relay.node.memory import Memory, granted

MIB = 1024 * 1024


def groups(root: Path, of_process: str, files: dict[str, str]) -> int | None:
    """What `granted` says of a machine like this."""
    process = root / "proc"
    process.mkdir()
    (process / "cgroup").write_text(of_process)
    for name, text in files.items():
        path = root / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return granted(process, root / "sys")


PHYSICAL = granted(Path("/nonexistent"), Path("/nonexistent"))


def test_a_machine_without_groups(tmp_path: Path) -> None:
    """Has what it has."""
    assert PHYSICAL is not None
    assert PHYSICAL > 100 * MIB
    assert groups(tmp_path, "0::/\n", {}) == PHYSICAL


@pytest.mark.parametrize(
    "files",
    [
        {"memory.max": f"{90 * MIB}\n"},
        {"a/b/memory.max": f"{90 * MIB}\n", "a/memory.max": "max\n"},
        {"a/b/memory.max": "max\n", "a/memory.max": f"{90 * MIB}\n"},
        {"a/b/memory.max": f"{95 * MIB}\n", "a/memory.max": f"{90 * MIB}\n"},
    ],
)
def test_the_least_of_a_group_and_those_above_it(tmp_path: Path, files: dict[str, str]) -> None:
    """Version 2; in a container its own group is what is mounted."""
    assert groups(tmp_path, "0::/a/b\n", files) == 90 * MIB


@pytest.mark.parametrize("folder", ["memory/a", "memory"])
def test_version_1(tmp_path: Path, folder: str) -> None:
    """Beside other controllers, under the path of the host or of the container."""
    stat = f"cache 7\nhierarchical_memory_limit {80 * MIB}\nhierarchical_memsw_limit 99\n"
    text = "11:cpu,cpuacct:/a\n4:memory:/a\n0::/\n"
    assert groups(tmp_path, text, {f"{folder}/memory.stat": stat}) == 80 * MIB


def test_a_group_without_a_limit(tmp_path: Path) -> None:
    """And nonsense in its files."""
    stat = f"hierarchical_memory_limit {2**63 - 4096}\n"
    files = {"memory/memory.stat": stat, "memory.max": "max\n", "a/memory.max": "nonsense"}
    assert groups(tmp_path, "4:memory:/\n0::/a\nnonsense\n", files) == PHYSICAL


IN_A_NEW_PROCESS = """
import os
from relay.node.memory import Memory
memory = Memory()
before = memory.resident()
held = [os.urandom(64 * 1024) for _ in range(1000)]
used = memory.resident()
del held
memory.give_back()
print(before, used, memory.resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_what_a_process_has() -> None:
    """It grows with what is used, and falls again when it is given back."""
    # A process of its own: this one may have room from tests before, and then it would not grow.
    done = subprocess.run([sys.executable, "-c", IN_A_NEW_PROCESS], capture_output=True, check=True, timeout=60)
    before, used, after = (int(number) for number in done.stdout.split())
    assert used > before + 50 * MIB
    assert after < before + 20 * MIB


def test_what_holds_itself_is_given_back_too() -> None:
    """While nobody is accepted nothing is made, and the collector would not look by itself."""
    ring: list[object] = []
    ring.append(ring)
    held = set("x")
    ring.append(Held(held))
    del ring
    Memory().give_back()
    assert not held


class Held:
    """Empties a set at its end."""

    def __init__(self, told: set[str]) -> None:
        self._told = told

    def __del__(self) -> None:
        self._told.clear()
