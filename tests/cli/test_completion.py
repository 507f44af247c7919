"""`relay completion`: a real bash completes commands and options; the other shells' scripts are printed."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.cli.completion import SHELLS
from tests.cli.conftest import Command
from tests.support.child import clean_environment

COMMANDS = Path(sys.executable).parent
PROMPT = b"ready> "


SAYS = ("complete -o", "#compdef relay", "complete ", "Register-")


@pytest.mark.parametrize(("shell", "says"), list(zip(SHELLS, SAYS, strict=True)))
def test_each_shell_has_its_script(command: Command, shell: str, says: str) -> None:
    """It calls relay with the variable that makes it complete."""
    done = command("completion", shell)
    assert (done.code, done.err) == (0, "")
    assert says in done.out
    assert "_RELAY_COMPLETE" in done.out
    if shell == "zsh":
        assert done.out.startswith("#compdef relay\n")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_a_script_is_one_for_its_shell(command: Command, shell: str) -> None:
    """The shell itself reads it without complaint, where it is installed."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(
        [program, "-n"], input=command("completion", shell).out, text=True, capture_output=True, timeout=20
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_another_shell(command: Command) -> None:
    """Is a mistake that names those that there are."""
    done = command("completion", "tcsh")
    assert done.code == 2
    assert "SHELL must be one of bash, zsh, fish, powershell, but it is 'tcsh'" in done.err


class Terminal:
    """An interactive bash on a terminal of its own."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self.said = b""

    def type(self, keys: bytes) -> None:
        os.write(self._handle, keys)

    def until(self, mark: bytes) -> bytes:
        """What it shows, up to the mark; from there on anew."""
        deadline = time.monotonic() + 30
        while mark not in self.said:
            ready, _, _ = select.select([self._handle], [], [], deadline - time.monotonic())
            assert ready, self.said
            self.said += os.read(self._handle, 4096)
        found, _, self.said = self.said.partition(mark)
        return found


@contextlib.contextmanager
def bash() -> Iterator[Terminal]:
    program = shutil.which("bash")
    if program is None:
        pytest.skip("bash is not installed")
    environment = clean_environment(
        {"PATH": f"{COMMANDS}:{os.environ['PATH']}", "PS1": PROMPT.decode(), "TERM": "dumb"}
    )
    handle, terminal = pty.openpty()
    shell = subprocess.Popen([program, "--norc", "--noprofile", "-i"], stdin=terminal, stdout=terminal, stderr=terminal,
                             env=environment, start_new_session=True)  # fmt: skip
    os.close(terminal)
    try:
        yield Terminal(handle)
    finally:
        shell.kill()
        shell.wait()
        os.close(handle)


def test_a_real_bash_completes() -> None:
    """`relay ke<TAB>` becomes `relay keys`, and an option is completed too."""
    with bash() as shell:
        shell.until(PROMPT)
        shell.type(b'eval "$(relay completion bash)"\n')
        shell.until(PROMPT)
        shell.type(b"relay ke\t")
        shell.until(b"keys ")
        shell.type(b"revoke --casc\t")
        shell.until(b"--cascade ")
        shell.type(b"\x03")
