"""What every test shares: a clean environment, hypothesis profiles, no process left behind. No fixture lives here."""

from __future__ import annotations

import os
from typing import Any

import psutil
import pytest
from hypothesis import settings

from tests.support import forkserver
from tests.support.child import Child

pytest_plugins = ("tests.support.reliability",)

FOR_TESTS = {"RELAY_CHAOS", "RELAY_TEST_POSTGRES_URL"}
LOCAL = "localhost,.localhost,127.0.0.1,::1"

settings.register_profile("test", deadline=None, print_blob=True)
settings.register_profile("chaos", deadline=None, print_blob=True, max_examples=2_000)


def pytest_configure(config: pytest.Config) -> None:
    """Choose the profile, and forget what the developer's own shell says about relays and keys."""
    settings.load_profile("chaos" if os.environ.get("RELAY_CHAOS") else "test")
    Child.fresh = False
    for name in list(os.environ):
        if name.startswith(("RELAY_", "MTK_")) and name not in FOR_TESTS:
            del os.environ[name]
    os.environ["XDG_CONFIG_HOME"] = os.devnull  # nor what the developer's own login says
    for name in ("NO_PROXY", "no_proxy"):  # tests talk to this machine; a proxy is for the package index only
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), LOCAL)))


def left_behind() -> list[str]:
    """Command lines of the processes that the tests of this process started and did not end within 3 s."""
    forkserver.close()
    children = psutil.Process().children(recursive=True)
    left: list[str] = []
    for child in psutil.wait_procs(children, timeout=3)[1]:
        try:
            line = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if line and "resource_tracker" not in line:  # multiprocessing's own, ends with its parent
            left.append(f"{child.pid} {line[:200]}")
    return left


def is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def spreads_work(config: pytest.Config) -> bool:
    """Whether this process only hands out tests; its children are then pytest's own workers."""
    return bool(getattr(config.option, "dist", "no") != "no" and not is_worker(config))


# Last of all, when every fixture, those of the session too, was torn down.
@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if spreads_work(session.config):
        lost: list[str] = getattr(session.config, "_left_behind", [])
    else:
        lost = left_behind()
    if is_worker(session.config):
        session.config.workeroutput["left_behind"] = lost  # type: ignore[attr-defined]
    elif lost:
        print("\nprocesses left behind by tests:", *lost, sep="\n  ")  # noqa: T201
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


class WhenSpread:
    """Hears from pytest-xdist's workers; registered only where that plugin is loaded."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        lost = [*getattr(self.config, "_left_behind", []), *getattr(node, "workeroutput", {}).get("left_behind", [])]
        self.config._left_behind = lost  # type: ignore[attr-defined]


def pytest_sessionstart(session: pytest.Session) -> None:
    if spreads_work(session.config):
        session.config.pluginmanager.register(WhenSpread(session.config))
