"""How tests of the command line call it: in this process, with stand-ins for what runs behind it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from relay.cli import main
from relay.keys.forms import Kind
from tests.cli.fakerelay import FakeRelay
from tests.cli.keytexts import private, signed

Event = dict[str, object]


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


@dataclass
class StandIn:
    """Takes the place of `relay.node` or `relay.agent`: keeps the settings, reports `events`, ends with `code`."""

    events: list[Event] = field(default_factory=list)
    code: int = 0
    error: BaseException | None = None
    settings: Any = None
    take_over: bool = False
    quiet: bool = False

    def run(
        self, settings: object, report: Callable[[Event], None], take_over: bool = False, *, quiet: bool = False
    ) -> int:
        self.settings, self.take_over, self.quiet = settings, take_over, quiet
        for event in self.events:
            report(event)
        if self.error is not None:
            raise self.error
        return self.code


Command = Callable[..., Result]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Calls `relay` with the words given, in a home directory of its own."""
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setattr(sys, "argv", ["relay"])

    def call(*words: str) -> Result:
        with pytest.raises(SystemExit) as end:
            main(words)
        said = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Result(end.value.code, said.out, said.err)

    return call


def _stand_in(monkeypatch: pytest.MonkeyPatch, name: str) -> StandIn:
    stand_in = StandIn()
    module = ModuleType(name)
    module.run = stand_in.run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    return stand_in


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """What `relay serve` runs."""
    return _stand_in(monkeypatch, "relay.node")


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """What `relay http` runs, with a key to show."""
    monkeypatch.setenv("RELAY_KEY", signed())
    return _stand_in(monkeypatch, "relay.agent")


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRelay]:
    """A relay for the commands, whose operator key is in RELAY_MASTER_KEY."""
    fake = FakeRelay()
    monkeypatch.setenv("RELAY_URL", fake.url)
    monkeypatch.setenv("RELAY_MASTER_KEY", private(Kind.OPERATOR))
    yield fake
    fake.close()
