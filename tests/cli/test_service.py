"""`relay service`: what is written for systemd and launchd, and what their own programs are asked.

No service manager runs where tests run, so a stand-in of systemctl or launchctl writes down how it was called; whether
a unit is one is asked systemd-analyze, where there is one.
"""

from __future__ import annotations

import importlib
import json
import os
import plistlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from relay.cli.serviceunits import MARK, SANDBOX, Service, launchd_plist, systemd_unit
from tests.cli.conftest import Command
from tests.cli.keytexts import signed

ROOT = Path(__file__).resolve().parents[2]
service_room = importlib.import_module("relay.cli.service")  # its name in the package is that of the command
UNITS = ROOT / "deploy" / "systemd"
FILE = "relay: wss://tunnels.example.com\nkey_file: child.key\ntunnels:\n  mcp-me: 3000\n"
ANALYZE = shutil.which("systemd-analyze")


class Fake:
    """Stands in for a manager's program: it notes each call, and answers as it is told."""

    def __init__(self, folder: Path, name: str) -> None:
        self._calls = folder / f"{name}.calls"
        self._answers = folder / f"{name}.answers"
        self._answers.mkdir(parents=True)
        program = folder / name
        program.write_text(
            f'#!/bin/sh\necho "$*" >> "{self._calls}"\nfor word; do\n'
            f'  if [ -e "{self._answers}/$word" ]; then . "{self._answers}/$word"; fi\ndone\nexit 0\n'
        )
        program.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """With which words it was called, in order."""
        return self._calls.read_text().splitlines() if self._calls.exists() else []

    def answer(self, word: str, script: str) -> None:
        """What it does when one of its words is this."""
        (self._answers / word).write_text(script)


@pytest.fixture
def file(tmp_path: Path, command: Command) -> Path:
    folder = tmp_path / "the tunnels"
    folder.mkdir()
    (folder / "child.key").touch(mode=0o600)
    (folder / "child.key").write_text(signed())
    (folder / "relay.yaml").write_text(FILE)
    return folder / "relay.yaml"


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory that has programs, but for a shell."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def user_unit() -> Path:
    return Path(os.environ["XDG_CONFIG_HOME"]) / "systemd" / "user" / "relay-agent.service"


# ---- systemd


@pytest.mark.usefixtures("linux")
def test_a_service_of_the_user(command: Command, file: Path, programs: Path) -> None:
    """The unit is written, systemd is asked to run it now and later; nothing secret is in it."""
    fake = Fake(programs, "systemctl")
    done = command("service", "install", "--file", str(file))
    assert (done.code, done.err) == (0, "")
    unit = user_unit().read_text()
    assert f'start --file "{file}" --quiet' in unit
    assert "mtk_" not in unit
    assert unit.splitlines()[0] == f"# {MARK}"
    assert fake.calls == [
        "--user daemon-reload",
        "--user enable relay-agent.service",
        "--user restart relay-agent.service",
    ]
    assert f"Wrote {user_unit()}" in done.out
    assert "loginctl enable-linger" in done.out

    fake.answer("is-enabled", "echo enabled")
    fake.answer("is-active", "echo active")
    assert json.loads(command("service", "status", "--json").out) == {
        "name": "relay-agent", "system": False, "file": str(user_unit()), "installed": True, "enabled": True,
        "running": True,
    }  # fmt: skip
    fake.answer("is-active", "echo failed; exit 3")
    done = command("service", "status")
    assert done.code == 1
    assert [line.split() for line in done.out.splitlines()] == [
        ["file", str(user_unit())], ["enabled", "yes"], ["running", "no"],
    ]  # fmt: skip

    done = command("service", "uninstall")
    assert (done.code, done.err) == (0, "")
    assert not user_unit().exists()
    assert fake.calls[-2:] == ["--user disable --now relay-agent.service", "--user daemon-reload"]
    assert command("service", "uninstall").err.startswith("relay: There is no service relay-agent: ")


@pytest.mark.usefixtures("linux")
def test_without_a_manager(command: Command, file: Path, programs: Path) -> None:
    """The unit is written, or removed, all the same; what is left to do is said, with the commands."""
    done = command("service", "install", "--file", str(file))
    assert done.code == 1
    assert user_unit().exists()
    assert done.err == (
        "relay: It was not started, because there is no program systemctl here. When that is cured: systemctl --user "
        "daemon-reload && systemctl --user enable relay-agent.service && systemctl --user restart relay-agent.service\n"
    )
    fake = Fake(programs, "systemctl")
    fake.answer("enable", "echo 'Failed to connect to bus: No medium found' >&2; exit 1")
    done = command("service", "install", "--file", str(file))
    assert "because Failed to connect to bus: No medium found. When that is cured: systemctl --user enable" in done.err
    told = json.loads(command("service", "status", "--json").out)
    assert (told["installed"], told["enabled"], told["running"]) == (True, None, None)
    fake.answer("disable", "exit 1")
    said = command("service", "uninstall").err
    assert "If it runs, it was not stopped, because exit code 1. When that is cured: systemctl --user stop" in said
    assert not user_unit().exists()


@pytest.mark.usefixtures("linux", "programs")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tunnels:\n  a: none\n", "relay.yaml:2: tunnels.a: "),
        (FILE.replace("child.key", "none.key"), "relay.yaml:2: key_file: The key file"),
        (FILE.replace("key_file: child.key\n", ""), "(A service has none of this shell's variables.)"),
    ],
)
def test_what_would_not_start_is_not_installed(
    command: Command, file: Path, text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key in the environment is none of the service's."""
    monkeypatch.setenv("RELAY_KEY", signed())
    file.write_text(text)
    done = command("service", "install", "--file", str(file))
    assert done.code == 2
    assert said in done.err
    assert not user_unit().exists()


@pytest.mark.usefixtures("linux", "programs")
def test_what_somebody_else_wrote_is_left_alone(command: Command, file: Path) -> None:
    """It is neither replaced nor removed."""
    user_unit().parent.mkdir(parents=True)
    user_unit().write_text("[Service]\nExecStart=/bin/true\n")
    for words in (("install", "--file", str(file)), ("uninstall",)):
        done = command("service", *words)
        assert done.code == 2
        assert "was not written by relay service install, so it was left alone: choose another --name." in done.err
    assert "/bin/true" in user_unit().read_text()


@pytest.mark.usefixtures("linux", "programs")
def test_a_service_of_the_machine(command: Command, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs as the file's owner; if that is root as nobody else, with its key as a credential."""
    monkeypatch.setattr(service_room, "HIDDEN", ())
    monkeypatch.setattr(service_room, "HIDDEN_HOMES", ())
    monkeypatch.setattr(service_room, "_owner", lambda file: "ann")
    unit = command("service", "install", "--system", "--print", "--name", "mine", "--file", str(file)).out
    assert "User=ann\n" in unit
    assert "ProtectHome=read-only\n" in unit
    assert "LoadCredential" not in unit
    monkeypatch.setattr(service_room, "_owner", lambda file: "")
    unit = command("service", "install", "--system", "--print", "--file", str(file)).out
    assert "DynamicUser=yes\n" in unit
    assert f"LoadCredential=agent-key:{file.parent}/child.key\n" in unit
    assert "--key-file %d/agent-key\n" in unit
    people = file.parent / "people.txt"
    people.touch(mode=0o600)
    people.write_text("ann:her-password\n")
    file.write_text(FILE.replace("3000", "{target: 3000, basic_auth_file: people.txt}"))
    done = command("service", "install", "--system", "--print", "--file", str(file))
    assert f"{people} can be read by root only" in done.err
    monkeypatch.undo()


@pytest.mark.usefixtures("linux", "programs")
def test_a_file_that_the_machines_service_would_not_see(
    command: Command, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is refused at once."""
    monkeypatch.setattr(service_room, "HIDDEN_HOMES", (file.parent.parts[1:],))
    monkeypatch.setattr(service_room, "_owner", lambda file: "")
    done = command("service", "install", "--system", "--file", str(file))
    assert "cannot be seen by a service of the machine: move it, to /etc/relay say." in done.err


def test_a_path_that_would_write_lines_of_its_own(command: Command, file: Path) -> None:
    """Whoever may name a file may not thereby say what root's service runs."""
    folder = file.parent.rename(file.parent.parent / "the\nExecStart=evil")
    done = command("service", "install", "--print", "--file", str(folder / file.name))
    assert (done.code, done.out) == (2, "")
    assert "has a character in its name that ends a line of a unit: move it." in done.err


@pytest.mark.usefixtures("linux", "programs")
def test_a_file_that_cannot_be_found(command: Command, file: Path, tmp_path: Path) -> None:
    """Links that lead in a circle, a name that would join two lines, and another's pipe: a sentence each."""
    (tmp_path / "loop").symlink_to("loop")
    assert "loop cannot be " in command("service", "install", "--print", "--file", str(tmp_path / "loop")).err
    folder = file.parent.rename(file.parent.parent / "the\\")
    ending = (folder / file.name).rename(folder / "end\\")
    assert "ends a line of a unit" in command("service", "install", "--print", "--file", str(ending)).err
    user_unit().parent.mkdir(parents=True)
    os.mkfifo(user_unit())
    assert "was not written by relay service install" in command("service", "uninstall").err


@pytest.mark.usefixtures("linux", "programs")
def test_where_the_users_units_are(command: Command, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not below a relative path; and nowhere without a home directory, which is told."""
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert '"file": "/' in command("service", "status", "--json").out

    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", homeless)
    done = command("service", "status")
    assert (done.code, done.out) == (2, "")
    assert "has no home directory for a service of its own: set HOME, or install one of the machine" in done.err


@pytest.mark.parametrize("name", ["", "../x", "a b", "-a", "x" * 64])
def test_names_of_services(command: Command, name: str) -> None:
    """What could lead elsewhere, or is no name of a unit, is refused."""
    done = command("service", "status", f"--name={name}")
    assert done.code == 2
    assert "--name must be letters, digits, _, . and -, for example --name relay-agent" in done.err


def service(**more: object) -> Service:
    given: dict[str, object] = {
        "name": "relay-agent",
        "program": ("/opt/my venv/bin/relay",),
        "file": Path("/etc/100% $HOME.yaml"),
    }
    return Service(**{**given, **more})  # type: ignore[arg-type]


def test_words_that_systemd_reads_in_its_own_way() -> None:
    """Spaces, percent and dollar signs arrive as they are."""
    assert 'ExecStart="/opt/my venv/bin/relay" start --file "/etc/100%% $$HOME.yaml" --quiet\n' in systemd_unit(
        service()
    )


@pytest.mark.skipif(ANALYZE is None, reason="there is no systemd-analyze here")
@pytest.mark.parametrize("kind", ["user", "owner", "credential", "relay.service", "relay-agent.service"])
def test_systemd_takes_every_unit(kind: str, tmp_path: Path) -> None:
    """Without a complaint, those of deploy/systemd too; what is installed there is named by this checkout's program."""
    program = Path(sys.executable).with_name("relay")
    kinds = {
        "user": service(),
        "owner": service(system=True, user="root"),
        "credential": service(system=True, key_file=Path("/etc/relay/agent-key")),
    }
    if kind in kinds:
        text = systemd_unit(kinds[kind]).replace('"/opt/my venv/bin/relay"', str(program))
    else:
        text = (UNITS / kind).read_text().replace("/usr/local/bin/relay", str(program))
    unit = tmp_path / (kind if kind.endswith(".service") else "relay-agent.service")
    unit.write_text(text)
    assert ANALYZE is not None
    done = subprocess.run([ANALYZE, "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    if kind != "user":
        done = subprocess.run([ANALYZE, "security", "--offline=true", "--threshold=20", str(unit)],
                              capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["relay.service", "relay-agent.service"])
def test_the_units_of_deploy_are_shut_in_as_well(name: str) -> None:
    """As whatever is installed: the same lines."""
    text = (UNITS / name).read_text()
    assert [line for line in SANDBOX.splitlines() if line not in text.splitlines()] == []
    assert "DynamicUser=yes" in text


# ---- launchd


def test_a_property_list_is_one() -> None:
    """With launchd's own names, and nothing else."""
    told = plistlib.loads(launchd_plist(service(), Path("/Users/ann/Library/Logs/relay-agent.log")))
    assert told["Label"] == "relay-agent"
    assert told["ProgramArguments"] == ["/opt/my venv/bin/relay", "start", "--file", "/etc/100% $HOME.yaml", "--quiet"]
    assert told["KeepAlive"] == {"SuccessfulExit": False}
    assert (told["RunAtLoad"], told["ExitTimeOut"], told["WorkingDirectory"]) == (True, 45, "/etc")
    assert "UserName" not in told
    assert plistlib.loads(launchd_plist(service(system=True, user="ann"), Path("/x")))["UserName"] == "ann"


@pytest.mark.usefixtures("mac")
def test_a_service_on_a_mac(command: Command, file: Path, programs: Path) -> None:
    """The list is written into the user's agents; launchd is asked to begin, to tell, and to end."""
    fake = Fake(programs, "launchctl")
    assert command("service", "install", "--file", str(file)).code == 0
    agent = Path.home() / "Library" / "LaunchAgents" / "relay-agent.plist"
    assert plistlib.loads(agent.read_bytes())["Label"] == "relay-agent"
    domain = f"gui/{os.getuid()}"
    assert fake.calls[-2:] == [f"bootout {domain}/relay-agent", f"bootstrap {domain} {agent}"]
    fake.answer("print", "echo 'state = running'")
    told = json.loads(command("service", "status", "--json").out)
    assert (told["installed"], told["enabled"], told["running"]) == (True, True, True)
    assert command("service", "uninstall").code == 0
    assert not agent.exists()


def test_a_system_without_a_manager_that_is_known(
    command: Command, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is told so."""
    monkeypatch.setattr(sys, "platform", "win32")
    done = command("service", "install", "--file", str(file))
    assert "let your own run relay start --file FILE." in done.err
