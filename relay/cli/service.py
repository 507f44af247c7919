"""`relay service`: an agent that runs by itself, as a service of this user or of the machine.

What would keep the service from starting is found before anything is written: it has neither this shell's variables
nor, as one of the machine, this user's login.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from relay.cli.errors import NOT_DONE, Mistake
from relay.cli.options import AsJson, group
from relay.cli.output import GREEN, YELLOW, Lines, harmless, say_json
from relay.cli.secretfiles import placed
from relay.cli.servicemanagers import Left, Manager, is_ours, manager
from relay.cli.serviceunits import Service
from relay.cli.tunnelfile import DEFAULT_FILE
from relay.cli.tunnelwatch import Chosen, TunnelWatch

service = group("Run an agent as a service of this machine, from now on.")
DEFAULT_NAME = "relay-agent"
# Directories that a service does not see, by PrivateTmp, and one without a user, by ProtectHome.
HIDDEN = (("tmp",), ("var", "tmp"))
HIDDEN_HOMES = (("home",), ("root",), ("run", "user"))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")

File = Annotated[Path, typer.Option("--file", "-f", help="The file that names the tunnels.", metavar="FILE")]
Name = Annotated[str, typer.Option("--name", help="What the service is called.", metavar="NAME")]
System = Annotated[
    bool,
    typer.Option(
        "--system", help="A service of the machine, not of this user; takes root.", metavar="", show_default=False
    ),
]


@service.command()
def install(
    file: File = Path(DEFAULT_FILE),
    name: Name = DEFAULT_NAME,
    system: System = False,
    only_print: Annotated[
        bool, typer.Option("--print", help="Print what would be written; do nothing.", metavar="", show_default=False)
    ] = False,
) -> None:
    """Let an agent with the tunnels of a file run now, and whenever the machine comes up.

    Example:

      relay service install --file relay.yaml
    """
    own = manager(_name(name), system, os.environ)
    made = _service(name, _whole(file), system)
    if only_print:
        sys.stdout.write(own.text(made).decode())
        return
    _write(own, own.text(made), system)
    lines, left = Lines(), own.begin()
    lines.say(f"Wrote {harmless(own.file)}", GREEN)
    if not left.reason:
        lines.say(f"The agent runs now, and whenever {'the machine comes up' if system else 'you log in'}.")
    if not system and sys.platform == "linux" and not Path("/var/lib/systemd/linger", _user()).exists():
        lines.say("To let it run also while you are not logged in: loginctl enable-linger", YELLOW)
    _tell(left, "It was not started")


@service.command()
def uninstall(name: Name = DEFAULT_NAME, system: System = False) -> None:
    """Stop the service, and remove it."""
    own = manager(_name(name), system, os.environ)
    _check_ours(own)
    if not own.file.exists():
        raise Mistake(f"There is no service {name}: {own.file} does not exist.", NOT_DONE)
    ended = own.end()
    try:
        own.file.unlink()
    except OSError as error:
        raise Mistake(f"{own.file} cannot be removed ({error.strerror}){_as_root(system)}.") from None
    forgotten = own.forget()
    Lines().say(f"Removed {harmless(own.file)}", GREEN)
    _tell(ended if ended.reason else forgotten, "If it runs, it was not stopped")


@service.command()
def status(name: Name = DEFAULT_NAME, system: System = False, as_json: AsJson = False) -> None:
    """Tell whether the service is there, starts by itself, and runs; exit code 1 where it does not run."""
    own = manager(_name(name), system, os.environ)
    installed, state = own.file.exists(), own.state()
    told = {"name": name, "system": system, "file": str(own.file), "installed": installed}
    if as_json:
        say_json({**told, "enabled": state.enabled, "running": state.running})
    else:
        lines = Lines()
        there = harmless(own.file) if installed else f"none; relay service install{_words(name, system)} makes it"
        lines.say(f"file     {there}")
        lines.say(f"enabled  {_yes(state.enabled)}")
        lines.say(f"running  {_yes(state.running)}", GREEN if state.running else YELLOW)
    if not state.running:
        raise typer.Exit(NOT_DONE)


# ---- what is to run


def _whole(file: Path) -> Path:
    """From the root, without links. Raises `Mistake`."""
    try:
        return placed(file).resolve()
    except (OSError, RuntimeError):  # links that lead to each other
        raise Mistake(f"{harmless(file)} cannot be found: name a file with --file FILE.") from None


def _service(name: str, file: Path, system: bool) -> Service:
    """Raises `Mistake` for what would not start."""
    if not str(file).isprintable() or str(file).endswith("\\"):
        raise Mistake(f"{harmless(file)} has a character in its name that ends a line of a unit: move it.")
    user = _owner(file) if system else ""
    if system and any(file.parts[1 : 1 + len(one)] == one for one in (*HIDDEN, *(() if user else HIDDEN_HOMES))):
        raise Mistake(f"{file} cannot be seen by a service of the machine: move it, to /etc/relay say.")
    watch = TunnelWatch(file, Chosen(), _environment(system))
    try:
        watch.settings()
    except Mistake as mistake:
        raise Mistake(f"{mistake} (A service has none of this shell's variables.)", mistake.code) from None
    key_file = _credential(file, watch) if system and not user else None
    return Service(name, _program(), file, system, user, key_file)


def _credential(file: Path, watch: TunnelWatch) -> Path:
    """The key of a service with a user of its own, to whom only that one file is handed over. Raises `Mistake`."""
    if watch.said.key_file is None:
        raise Mistake(
            f"{file} has no key_file, and a service of the machine has no login: write key_file: agent-key, say."
        )
    key = watch.said.key_file[0]
    for path in sorted(watch.files - {key}):
        if not path.stat().st_mode & 0o004:
            raise Mistake(
                f"{path} can be read by root only, and the service has a user of its own: give {file} and the files "
                "that it names to a user with chown, as whom the service then runs."
            )
    return key


def _environment(system: bool) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "MTK_"))}
    return {**kept, "XDG_CONFIG_HOME": "/nonexistent", "XDG_STATE_HOME": "/nonexistent"} if system else kept


def _program() -> tuple[str, ...]:
    """By which this command was called, from wherever a service begins."""
    called = shutil.which(sys.argv[0])
    if called is not None and Path(called).name in ("relay", "mytunnel"):
        return (os.path.abspath(called),)  # not resolved: an upgrade may replace what a link leads to
    return (sys.executable, "-m", "relay")


def _owner(file: Path) -> str:
    """Who owns a file, unless it is root. Raises `Mistake`."""
    try:
        owner = file.owner()
    except (OSError, KeyError, NotImplementedError) as error:
        raise Mistake(
            f"{file} cannot be read ({getattr(error, 'strerror', None) or error}): name one with --file FILE."
        ) from None
    return "" if owner == "root" else owner


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


# ---- the file


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise Mistake(
            f"--name must be letters, digits, _, . and -, for example --name {DEFAULT_NAME}, "
            f"but it is {harmless(text)!r}."
        )
    return text


def _check_ours(own: Manager) -> None:
    try:
        foreign = own.file.exists() and not is_ours(own.file)
    except OSError as error:
        raise Mistake(f"{own.file} cannot be read ({error.strerror}).") from None
    if foreign:
        raise Mistake(
            f"{own.file} was not written by relay service install, so it was left alone: choose another --name."
        )


def _write(own: Manager, text: bytes, system: bool) -> None:
    _check_ours(own)
    try:
        own.file.parent.mkdir(parents=True, exist_ok=True)
        own.file.write_bytes(text)
    except OSError as error:
        raise Mistake(f"{own.file} cannot be written ({error.strerror}){_as_root(system)}.") from None


def _as_root(system: bool) -> str:
    return ": a service of the machine takes root, so use sudo" if system and os.geteuid() else ""


def _tell(left: Left, what: str) -> None:
    if left.reason:
        commands = " && ".join(left.commands)
        raise Mistake(f"{what}, because {harmless(left.reason)}. When that is cured: {commands}", NOT_DONE)


def _words(name: str, system: bool) -> str:
    return (f" --name {name}" if name != DEFAULT_NAME else "") + (" --system" if system else "")


def _yes(value: bool | None) -> str:
    return "unknown" if value is None else "yes" if value else "no"
