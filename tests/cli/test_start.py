"""`relay start`: the file and the command line become the agent's settings, and are looked at for changes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from relay.agent.config import AgentSettings, BadChange
from relay.cli import app, tunnelwatch
from relay.cli.errors import Mistake
from relay.cli.keyring import find_key
from relay.cli.tunnelwatch import Chosen, TunnelWatch
from relay.keys.forms import Kind, shown
from tests.cli.conftest import Command, Event, StandIn
from tests.cli.keytexts import private, signed

FILE = "relay: wss://tunnels.example.com\ntunnels:\n  api: {target: 3000, private: true, rate: 20}\n  web: 8000\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "relay.yaml"
    path.write_text(FILE)
    return path


def key_in(path: Path, text: str) -> Path:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def test_a_file_is_started(command: Command, agent: StandIn, file: Path) -> None:
    """All of its tunnels in one agent, which is given what follows the file."""
    agent.events = [{"event": "hint", "message": "Hello"}]
    agent.code = 7
    done = command("start", "--file", str(file))
    assert (done.code, "Hello" in done.out) == (7, True)
    settings = agent.settings
    assert [(name, target.url) for name, target in settings.tunnels] == [
        ("api", "http://127.0.0.1:3000"),
        ("web", "http://127.0.0.1:8000"),
    ]
    assert (settings.relay_url, settings.links) == ("wss://tunnels.example.com", 2)
    assert (set(settings.access), set(settings.limits)) == ({"api"}, {"api"})
    assert isinstance(agent.take_over, TunnelWatch)


def test_what_happens_to_the_file_is_told(command: Command, agent: StandIn, file: Path) -> None:
    """In a line each; what was not taken over on standard error."""
    events: list[Event] = [
        {"event": "connected", "slot": 0},
        {"event": "released", "slot": 0},
        {"event": "reloaded", "added": ["api"], "removed": [], "changed": ["web", "x"]},
        {"event": "reloaded", "added": [], "removed": [], "changed": []},
        {"event": "reload_failed", "message": "relay.yaml:3: tunnels.api must be"},
    ]
    agent.events = events
    done = command("start", "--file", str(file))
    assert "Read the file anew: added api; changed web, x." in done.out
    assert "Read the file anew: the tunnels are the same." in done.out
    assert "The tunnels stay as they were. relay.yaml:3: tunnels.api must be." in done.err
    done = command("start", "--file", str(file), "--json")
    assert [json.loads(line) for line in done.out.splitlines() if "hint" not in line] == events


def test_the_file_is_relay_yaml_here(command: Command, agent: StandIn, file: Path, monkeypatch: Any) -> None:
    """Without --file; and where there is none, that is said with what to do."""
    monkeypatch.chdir(file.parent)
    assert command("start").code == 0
    file.unlink()
    done = command("start")
    assert (done.code, done.out) == (2, "")
    assert "relay: relay.yaml cannot be read (No such file or directory): name a file with --file FILE." in done.err


def test_check_opens_nothing(command: Command, agent: StandIn, file: Path) -> None:
    """It says what would be opened, for people and for programs, and by which key."""
    done = command("start", "--check", "--file", str(file))
    assert (done.code, agent.settings) == (0, None)
    assert done.out.splitlines() == [
        f"{file} is good: 2 tunnels at wss://tunnels.example.com",
        "  api  http://127.0.0.1:3000  private, 20 requests a second",
        "  web  http://127.0.0.1:8000",
        f"Key: {shown(os.environ['RELAY_KEY'])}, from RELAY_KEY",
    ]
    told = json.loads(command("start", "--check", "--file", str(file), "--json").out)
    assert (told["relay"], told["links"]) == ("wss://tunnels.example.com", 2)
    assert told["tunnels"][0] == {
        "subdomain": "api", "target": "http://127.0.0.1:3000", "access": ["visitor_key"], "upstream_fields": 0,
        "preserve_host": False, "rate": 20, "rate_per_address": None,
    }  # fmt: skip
    assert os.environ["RELAY_KEY"] not in done.out + json.dumps(told)


def test_check_of_a_bad_file(command: Command, agent: StandIn, file: Path) -> None:
    """One sentence with the line, and exit code 2."""
    file.write_text(FILE + "  bad: here\n")
    done = command("start", "--check", "--file", str(file))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"relay: {file}:5: tunnels.bad: ")
    assert len(done.err.splitlines()) == 1


def test_the_command_line_counts_for_more(command: Command, agent: StandIn, file: Path, tmp_path: Path) -> None:
    """Than the file, and the file for more than the environment."""
    own, other = signed(), signed()
    key_in(tmp_path / "own.key", own)
    file.write_text(FILE + "key_file: own.key\nmetrics: 127.0.0.1:9091\n")
    assert command("start", "--file", str(file)).code == 0
    assert (agent.settings.keys.fresh().text, agent.settings.metrics) == (own, ("127.0.0.1", 9091))
    key_file = key_in(tmp_path / "other.key", other)
    words = ("--relay", "ws://relay.example", "--insecure", "--key-file", str(key_file), "--metrics", "127.0.0.1:9092")
    assert command("start", "--file", str(file), *words).code == 0
    assert agent.settings.metrics == ("127.0.0.1", 9092)
    assert (agent.settings.relay_url, agent.settings.keys.fresh().text) == ("ws://relay.example", other)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "relay: http://tunnels.example.com",
            ":1: relay: ws://tunnels.example.com would carry the key over the network",
        ),
        (
            "relay: here",
            ":1: relay must be the relay's address, for example relay: wss://tunnels.example.com, but it is",
        ),
        ("key_file: none.key", ":1: key_file: The key file "),
        ("project: mcp-server", ":1: project: What RELAY_KEY holds is a child key"),
    ],
)
def test_what_the_agent_could_not_start_by(command: Command, agent: StandIn, file: Path, line: str, said: str) -> None:
    """The address and the key are checked as on the command line."""
    file.write_text(f"{line}\ntunnels:\n  web: 8000\n")
    done = command("start", "--file", str(file))
    assert (done.code, agent.settings) == (2, None)
    assert said in done.err


PAGE = (Path(__file__).resolve().parents[2] / "docs" / "agent.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Many tunnels: `relay start`\n")[1].split("\n## ")[0]


def test_every_option_is_described() -> None:
    """In the page's table, and none that there is not."""
    group: Any = typer.main.get_command(app())
    known = {word for one in group.get_command(None, "start").params for word in one.opts if word.startswith("-")}
    table = "".join(line for line in SECTION.splitlines() if line.startswith("|"))
    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", table)) == known - {"--help", "-h"}


# ---- changes


@pytest.fixture
def watch(command: Command, file: Path, tmp_path: Path) -> tuple[TunnelWatch, AgentSettings]:
    """Of a file with a child key."""
    key_in(tmp_path / "child.key", signed())
    file.write_text(FILE + "key_file: child.key\n")
    watch = TunnelWatch(file, Chosen(), {})
    return watch, watch.settings()


def looked(watch: TunnelWatch) -> AgentSettings:
    """After two looks: at the first something may still be writing."""
    assert watch.look(False) is None
    found = watch.look(False)
    assert found is not None
    return found


Edit = Callable[[Path], object]


@pytest.mark.parametrize(
    ("edit", "same_links"),
    [
        (lambda file: file.write_text(file.read_text().replace("8000", "8001")), True),
        (lambda file: file.write_text(file.read_text().replace("rate: 20", "rate: 21")), False),
        (lambda file: file.write_text(file.read_text().replace("web", "next")), False),
        (lambda file: key_in(file.parent / "child.key", signed()), False),
        (lambda file: os.utime(file, ns=(1, 1)), True),
        (lambda file: file.chmod(0o600), True),
    ],
)
def test_a_change_is_seen(watch: tuple[TunnelWatch, AgentSettings], file: Path, edit: Edit, same_links: bool) -> None:
    """In the file, or in one that it names, once; a key that stayed is the same source of keys."""
    told, before = watch
    assert told.look(False) is None
    edit(file)
    after = looked(told)
    assert after.asks_the_same(before) == same_links
    assert told.look(False) is None
    assert told.look(True) is not None


def test_a_change_while_the_file_is_read_is_seen(
    watch: tuple[TunnelWatch, AgentSettings], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passwords take their time: what was written meanwhile is read at the next look."""
    told, _ = watch

    def slowly(*given: Any) -> Any:
        file.write_text(file.read_text().replace("rate: 20", "rate: 2100"))
        return find_key(*given)

    monkeypatch.setattr(tunnelwatch, "find_key", slowly)
    before = told.look(True)
    monkeypatch.undo()
    assert before is not None
    assert not looked(told).asks_the_same(before)


def test_a_bad_change_is_told_once(watch: tuple[TunnelWatch, AgentSettings], file: Path) -> None:
    """With its line; what comes after it is seen again, and is the same as before."""
    told, before = watch
    good = file.read_text()
    file.write_text(good + "links: many\n")
    assert told.look(False) is None
    with pytest.raises(BadChange, match=r"relay.yaml:6: links must be a number"):
        told.look(False)
    assert told.look(False) is None
    file.write_text(good)
    assert looked(told).asks_the_same(before)


def test_a_key_that_mints_is_another_source_for_other_names(command: Command, file: Path, tmp_path: Path) -> None:
    """The keys that it mints open its tunnels and no more; what is put back finds the source that it had."""
    key_in(tmp_path / "master.key", private(Kind.MASTER))
    with_key = FILE + "key_file: master.key\nproject: mcp-server\n"
    file.write_text(with_key)
    watch = TunnelWatch(file, Chosen(), {})
    first = watch.settings()
    file.write_text(with_key.replace("web", "next"))
    assert looked(watch).keys is not first.keys
    file.write_text(with_key)
    assert looked(watch).keys is first.keys


def test_a_file_that_goes_away(watch: tuple[TunnelWatch, AgentSettings], file: Path) -> None:
    """Is a bad change; the first time it is no start."""
    told, _ = watch
    file.unlink()
    assert told.look(False) is None
    with pytest.raises(BadChange, match="cannot be read"):
        told.look(False)
    with pytest.raises(Mistake):
        TunnelWatch(file, Chosen(), {}).settings()
