"""The images, built once, and figures that were seen, shown at the end. No test lives here."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.compose.engine import Stack, build
from tests.compose.outside import Outside

FIGURES: list[str] = []
Told = Callable[[str], None]
Start = Callable[..., Outside]


@pytest.fixture(scope="session", autouse=True)
def images() -> None:
    """Builds both; without an engine nothing here can be tested, which is a failure and no success."""
    found = subprocess.run(["docker", "info"], capture_output=True, check=False)
    assert found.returncode == 0, "No Docker engine answers: make test-compose says what is missing."
    build()


@pytest.fixture(scope="session")
def told() -> Told:
    """Keeps a figure for the end."""
    return FIGURES.append


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts a stack, or the services of it that are named, and gives what is before it; ends it with the module."""
    stacks: list[Stack] = []

    def start(stack: Stack, *services: str) -> Outside:
        stacks.append(stack)
        stack.up(*services)
        folder: Path = tmp_path_factory.mktemp("outside")
        return Outside(stack, stack.authority(folder), folder)

    try:
        yield start
    finally:
        for stack in stacks:
            stack.down()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("figures")
        for line in FIGURES:
            terminalreporter.write_line(line)
