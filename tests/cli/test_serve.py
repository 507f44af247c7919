"""`relay serve`: flags become settings, and what the node reports becomes text that says what to do next."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from relay.settings import SETTINGS
from tests.cli.conftest import Command, Event, StandIn

SERVING: Event = {
    "event": "serving", "domain": "tunnels.localhost", "public": "127.0.0.1:8080", "agents": "127.0.0.1:8081",
    "internal": None, "key_file": "/data/operator.key", "public_url": "http://NAME.tunnels.localhost:8080",
}  # fmt: skip


def test_every_setting_has_its_flag(command: Command, node: StandIn) -> None:
    """Each flag, given its own example, changes the setting of its name."""
    examples = {"database_url_file": None, "public_url": "https://tunnels.example.com", "agents": "127.0.0.1:2"}
    words: list[str] = []
    for one in SETTINGS:
        text = examples.get(one.name, one.kind.example)
        if one.flag and text:
            words += [one.flag, text]
    words[words.index("--internal") + 1] = "127.0.0.1:3"
    assert command("serve", *words).code == 0
    for one in SETTINGS:
        if one.flag and one.flag in words:
            assert getattr(node.settings, one.name) == one.kind.parse(words[words.index(one.flag) + 1]), one.name


def test_the_names_that_scripts_rely_on(command: Command, node: StandIn, tmp_path: Path) -> None:
    """The four flags of a demonstration, with ports that the system chooses."""
    command(
        "serve", "--domain", "tunnels.localhost", "--public", "127.0.0.1:0", "--agents", "127.0.0.1:0",
        "--data", str(tmp_path),
    )  # fmt: skip
    assert (str(node.settings.public), node.settings.data) == ("127.0.0.1:0", tmp_path)


def test_flag_environment_and_file(
    command: Command, node: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The three sources in their order, through the command itself."""
    config = tmp_path / "relay.toml"
    config.write_text('domain = "file.example"\nhold = 1\ngrace = 1\n', encoding="utf-8")
    monkeypatch.setenv("RELAY_HOLD", "2")
    monkeypatch.setenv("RELAY_GRACE", "2")
    command("serve", "--config", str(config), "--grace", "3")
    assert (node.settings.domain, node.settings.hold, node.settings.grace) == ("file.example", 2, 3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--hold", "soon"), "hold (from the flag --hold) must be a number of seconds"),
        (("--public", "0.0.0.0:8080"), "--trusted-proxies"),
        (("--config", "/nonexistent.toml"), "No such file"),
        (("--database-url", "x"), "No such option"),
    ],
)
def test_a_mistake_is_one_sentence(words: tuple[str, ...], said: str, command: Command, node: StandIn) -> None:
    """Exit code 2, one line on stderr, and nothing was started. A secret has no flag: everybody can see arguments."""
    result = command("serve", *words)
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert result.err.count("\n") == 1
    assert node.settings is None


def test_an_installation_without_the_server(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's own installation says what to install."""

    class Absent:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "relay.node":
                raise ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")

    monkeypatch.delitem(sys.modules, "relay.node", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    result = command("serve")
    assert result.code == 2
    assert "pip install 'tunnel-relay[server]'" in result.err
    assert result.err.count("\n") == 1


def test_an_address_that_is_taken(command: Command, node: StandIn) -> None:
    """A listener that cannot be opened is no fault of ours: the system's words and the next step."""
    node.error = OSError(98, "Address already in use")
    result = command("serve")
    assert result.code == 1
    assert "Address already in use" in result.err
    assert "--public" in result.err
    assert result.err.count("\n") == 1


def test_a_start_that_failed(command: Command, node: StandIn) -> None:
    """What the node itself says goes to stderr as one line, and its exit code is passed on."""
    node.events, node.code = [{"event": "error", "message": "agents: 127.0.0.1:8081 is taken"}], 1
    result = command("serve")
    assert (result.code, result.out) == (1, "")
    assert result.err == "relay: agents: 127.0.0.1:8081 is taken.\n"


def test_what_an_operator_reads(command: Command, node: StandIn) -> None:
    """What is served, where agents connect, where the key is (never the key), how to use it, and how to stop."""
    node.events = [SERVING]
    out = command("serve").out
    for text in (
        "Relay for tunnels.localhost", "http://NAME.tunnels.localhost:8080", "127.0.0.1:8080", "ws://127.0.0.1:8081",
        "/data/operator.key", "relay http 3000 --subdomain NAME", "Ctrl-C",
    ):  # fmt: skip
        assert text in out
    assert "internal" not in out
    assert "--relay ws://127.0.0.1:8081" not in out


def test_the_next_step_fits_what_is_served(command: Command, node: StandIn, tmp_path: Path) -> None:
    """With other ports, another data directory and a real domain, the commands that are printed name them."""
    path = str(tmp_path / "operator.key")
    node.events = [
        {
            **SERVING,
            "agents": "127.0.0.1:9",
            "internal": "127.0.0.1:7",
            "key_file": path,
            "public_url": "https://NAME.t.example",
        }
    ]
    out = command("serve", "--data", str(tmp_path), "--domain", "t.example").out
    assert f"relay http 3000 --subdomain NAME --relay ws://127.0.0.1:9 --key-file {path}\n" in out
    assert "relay http 3000 --subdomain NAME --relay wss://t.example --key-file FILE\n" in out
    assert "https://NAME.t.example" in out
    assert "http://127.0.0.1:7" in out


def test_events_of_a_running_relay(command: Command, node: StandIn) -> None:
    """Agents that come and go, warnings and the end are a line each, with nothing that steers a terminal."""
    node.events = [
        {"event": "agent_up", "names": ["a", "b"]},
        {"event": "agent_down", "names": ["a"]},
        {"event": "warning", "message": "Low \x1b[2J on descriptors"},
        {"event": "took_over", "pid": 12},
        {"event": "took_over", "pid": None},
        {"event": "handed_over", "pid": 13},
        {"event": "stopping"},
        {"event": "stopped"},
    ]
    lines = command("serve").out.splitlines()
    assert [line[10:] for line in lines[:3]] == ["a has its agent", "b has its agent", "a lost its agent"]
    assert lines[3][10:] == r"Warning: Low \x1b[2J on descriptors."
    assert [line[10:] for line in lines[4:7]] == [
        "Took over from the relay with pid 12.",
        "No relay ran on this data directory: there was nothing to take over.",
        "The relay with pid 13 has taken over.",
    ]
    assert lines[8][10:] == "Stopped."


def test_memory_that_gets_short(command: Command, node: StandIn) -> None:
    """How much is used, and what the relay does about it."""
    used = [(1, 85), (2, 91), (3, 96), (0, 40)]
    node.events = [
        {"event": "pressure", "level": level, "resident": share * 2**20, "budget": 100 * 2**20} for level, share in used
    ]
    assert [line[10:] for line in command("serve").out.splitlines()] == [
        "Memory is short: each answer ends its connection (85 % of 100 MiB are used).",
        "Memory is short: new requests are refused (91 % of 100 MiB are used).",
        "Memory is short: nobody is accepted (96 % of 100 MiB are used).",
        "There is enough memory again (40 % of 100 MiB are used).",
    ]


def test_taking_over(command: Command, node: StandIn) -> None:
    """The flag alone says so: it is no setting that a file or the environment could give to every start."""
    command("serve")
    assert node.take_over is False
    command("serve", "--take-over")
    assert node.take_over is True


def test_json(command: Command, node: StandIn) -> None:
    """Each event is one line, as it was reported, and the exit code is the node's."""
    node.events = [SERVING, {"event": "stopped"}]
    node.code = 1
    result = command("serve", "--json")
    assert [json.loads(line) for line in result.out.splitlines()] == node.events
    assert result.code == 1
