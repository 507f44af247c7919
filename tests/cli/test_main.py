"""The command as a whole: versions, help, and how each kind of mistake ends."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import relay.cli
from relay import __version__
from tests.cli.conftest import Command, StandIn

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("word", ["version", "--version"])
def test_version(word: str, command: Command) -> None:
    """The version is printed the same way by the command and the option."""
    result = command(word)
    found = importlib.util.find_spec("relay.wire.frames")
    assert found is not None
    compiled = str(found.origin).endswith(sysconfig.get_config_var("EXT_SUFFIX"))
    assert (result.code, result.out) == (0, f"relay {__version__}{' (compiled)' if compiled else ''}\n")


@pytest.mark.parametrize("words", [(), ("--help",)])
def test_help_explains_before_it_lists(words: tuple[str, ...], command: Command) -> None:
    """What it is comes first, then an example, then the commands; without a command the help is shown too."""
    result = command(*words)
    assert result.code == 0
    places = [result.out.index(text) for text in ("A relay runs where", "relay http 3000 --subdomain", "Commands")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nope",), "relay: No such command 'nope'. See: relay --help"),
        (("http", "3000", "--foo"), "relay: No such option: --foo. See: relay http --help"),
        (("http", "3000", "--links", "two"), "--links"),
        (("serve", "extra"), "See: relay serve --help"),
    ],
)
def test_a_usage_mistake_is_one_line(words: tuple[str, ...], said: str, command: Command) -> None:
    """A mistyped command ends with 2 and one line on stderr that says where help is."""
    result = command(*words)
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("name", relay.cli.COMMANDS)
def test_a_command_alone_is_as_among_all(name: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the room of the one that is called is loaded, which nobody can tell from its help."""
    alone = command(name, "--help")
    assert (alone.code, alone.err) == (0, "")
    monkeypatch.setattr(relay.cli, "_command", lambda _word: relay.cli._made(None))
    assert command(name, "--help") == alone


def test_the_alias_speaks_of_itself(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called as mytunnel, the next step names mytunnel."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mytunnel"])
    assert "See: mytunnel --help" in command("nope").err


def test_a_fault_of_ours_is_one_line(command: Command, agent: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error ends with 1 and one line that says how to see more; RELAY_DEBUG=1 shows it."""
    agent.error = ZeroDivisionError("no such number")
    result = command("http", "3000")
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert "ZeroDivisionError: no such number" in result.err
    assert "RELAY_DEBUG=1" in result.err
    monkeypatch.setenv("RELAY_DEBUG", "1")
    result = command("http", "3000")
    assert result.code == 1
    assert "Traceback" in result.err


def test_ctrl_c_before_anything_runs(command: Command, agent: StandIn) -> None:
    """An interrupt that the agent does not handle itself ends with the shell's own code and no traceback."""
    agent.error = KeyboardInterrupt()
    result = command("http", "3000")
    assert (result.code, result.err) == (130, "")


def test_nobody_reads_the_output(tmp_path: Path) -> None:
    """A reader that left, as in `relay --version | true`, is no reason for a traceback."""
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    with os.fdopen(write, "wb") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "relay", "version"],
            stdout=gone, stderr=subprocess.PIPE, env=environment, timeout=60, check=False,
        )  # fmt: skip
    assert b"Traceback" not in done.stderr


LOADED = """
import sys
from relay.cli import main
import relay.agent.config
print(sorted({"rich", "tomllib", "relay.node", "asyncio", "uvicorn", "starlette", "jwt"} & set(sys.modules)))
"""


@pytest.mark.parametrize("closing", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_lead_nowhere(closing: str) -> None:
    """No file or socket that is opened later gets the number of one, to have in it what is said there."""
    program = (
        "import os; from relay.__main__ import open_what_is_closed\n"
        "open_what_is_closed(); print('said', flush=True)\n"
        "os._exit(0 if os.open('/', os.O_RDONLY) > 2 else 1)"
    )
    call = ["sh", "-c", f'exec "$@" {closing}', "sh", sys.executable, "-c", program]
    assert subprocess.run(call, timeout=30, check=False).returncode == 0


def test_what_the_command_line_loads() -> None:
    """An agent pays for the command line with Typer only: Rich is loaded for help, not before."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "rich" not in done.stdout, done.stdout
    assert "tomllib" not in done.stdout
    assert "jwt" not in done.stdout, "a key that is a token is only passed on; the others are signed with where needed"
    assert "relay.node" not in done.stdout
    assert done.returncode == 0, done.stderr
