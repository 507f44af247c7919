"""The service managers of Linux and macOS: where a service's file is, and how it is begun, ended and looked at.

Calls the manager's own program and believes what it says. Where it cannot be called, everything else is done all the
same, and the commands that are left are told.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from relay.cli.errors import Mistake
from relay.cli.secretfiles import is_special
from relay.cli.serviceunits import MARK, Service, launchd_plist, systemd_unit

WITHIN = 60.0
"""Seconds that a call of a manager may take: to stop an agent takes up to 45."""


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a service; None where it is not."""

    enabled: bool | None = None
    running: bool | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """Why a manager did not do what was asked, and by which commands it can be done later; nothing where it did."""

    reason: str = ""
    commands: tuple[str, ...] = ()


DONE = Left()


class Manager(Protocol):
    """One of them, for a user's services or the machine's."""

    file: Path
    """Where the service's file is, or would be."""

    def text(self, service: Service) -> bytes:
        """What is to stand in it."""

    def begin(self) -> Left:
        """Starts what the file says, now and whenever the machine or its user comes up; anew if it runs."""

    def end(self) -> Left:
        """Stops it for good; the file is still there."""

    def forget(self) -> Left:
        """The file is gone."""

    def state(self) -> State:
        """What is known."""


def manager(name: str, system: bool, environment: Mapping[str, str]) -> Manager:
    """That of this machine. Raises `Mistake` where there is none that is known."""
    if sys.platform == "linux":
        return Systemd(name, system, environment)
    if sys.platform == "darwin":
        return Launchd(name, system)
    raise Mistake(
        "This system has no service manager that relay knows, which are systemd and launchd: let your own run "
        "relay start --file FILE."
    )


class Systemd:
    """See systemctl(1)."""

    def __init__(self, name: str, system: bool, environment: Mapping[str, str]) -> None:
        self._unit = f"{name}.service"
        self._words = ("systemctl",) if system else ("systemctl", "--user")
        base = Path("/etc") if system else _config(environment)
        self.file = base / "systemd" / ("system" if system else "user") / self._unit

    def text(self, service: Service) -> bytes:
        """See `Manager.text`."""
        return systemd_unit(service).encode()

    def begin(self) -> Left:
        """See `Manager.begin`."""
        return _all(self._calls(("daemon-reload",), ("enable", self._unit), ("restart", self._unit)))

    def end(self) -> Left:
        """See `Manager.end`."""
        left = _all(self._calls(("disable", "--now", self._unit)))
        return replace(left, commands=(" ".join((*self._words, "stop", self._unit)),)) if left.reason else DONE

    def forget(self) -> Left:
        """See `Manager.forget`."""
        return _all(self._calls(("daemon-reload",)))

    def state(self) -> State:
        """See `Manager.state`."""
        enabled, running = (_said([*self._words, what, self._unit]) for what in ("is-enabled", "is-active"))
        return State(
            None if enabled in _UNKNOWN else enabled == "enabled",
            None if running in _UNKNOWN else running in ("active", "activating", "reloading"),
        )

    def _calls(self, *calls: tuple[str, ...]) -> list[tuple[str, ...]]:
        return [(*self._words, *call) for call in calls]


# Of a bus that cannot be reached nothing comes on standard output.
_UNKNOWN = ("", "unknown", "offline")


class Launchd:
    """See launchctl(1). The name is the label."""

    def __init__(self, name: str, system: bool) -> None:
        library = Path("/Library") if system else _home() / "Library"
        self.file = library / ("LaunchDaemons" if system else "LaunchAgents") / f"{name}.plist"
        self._log = library / "Logs" / f"{name}.log"
        self._domain = "system" if system else f"gui/{os.getuid()}"
        self._target = f"{self._domain}/{name}"

    def text(self, service: Service) -> bytes:
        """See `Manager.text`."""
        return launchd_plist(service, self._log)

    def begin(self) -> Left:
        """See `Manager.begin`."""
        _said(["launchctl", "bootout", self._target])  # an older one; there may be none
        return _all([("launchctl", "bootstrap", self._domain, str(self.file))])

    def end(self) -> Left:
        """See `Manager.end`."""
        return _all([("launchctl", "bootout", self._target)])

    def forget(self) -> Left:
        """See `Manager.forget`."""
        return DONE

    def state(self) -> State:
        """See `Manager.state`."""
        said = _said(["launchctl", "print", self._target])
        return State(bool(said), "state = running" in said)


def _config(environment: Mapping[str, str]) -> Path:
    """Where the user's units are below. A relative path in such a variable is to be ignored, says its specification."""
    base = Path(environment.get("XDG_CONFIG_HOME", ""))
    return base if base.is_absolute() else _home() / ".config"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise Mistake(
            "This user has no home directory for a service of its own: set HOME, or install one of the machine with "
            "--system."
        ) from None


def is_ours(file: Path) -> bool:
    """Whether `install` wrote it. Raises `OSError`."""
    return not is_special(file) and MARK.encode() in file.read_bytes()[:512]


def _all(calls: Sequence[tuple[str, ...]]) -> Left:
    """Each in turn; from the first that fails on, they are left."""
    for number, call in enumerate(calls):
        reason = _failure(call)
        if reason:
            return Left(reason, tuple(" ".join(one) for one in calls[number:]))
    return DONE


def _failure(call: Sequence[str]) -> str:
    """Why a call failed; empty where it did not."""
    try:
        done = subprocess.run(call, capture_output=True, text=True, errors="replace", timeout=WITHIN, check=False)
    except FileNotFoundError:
        return f"there is no program {call[0]} here"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{call[0]} did not answer: {error}"
    if done.returncode == 0:
        return ""
    return next(iter((done.stderr or done.stdout).strip().splitlines()), f"exit code {done.returncode}").rstrip(".")


def _said(call: Sequence[str]) -> str:
    """What a call writes; empty where it cannot be made."""
    try:
        done = subprocess.run(call, capture_output=True, text=True, errors="replace", timeout=WITHIN, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
