"""`relay completion`: what makes a shell complete the commands and their options. The completing itself is Typer's.

Nothing of it is loaded by any other call: shells say by a variable of the environment that they want to complete.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping
from typing import Annotated

import typer

from relay.cli.errors import UNEXPECTED, Mistake
from relay.cli.options import one_of

SHELLS = ("bash", "zsh", "fish", "powershell")


def completion(
    context: typer.Context,
    shell: Annotated[str, typer.Argument(help="One of: bash, zsh, fish, powershell.", metavar="SHELL")],
) -> None:
    """Print what makes a shell complete the words of this command.

    Examples:

      eval "$(relay completion bash)"      (in ~/.bashrc)
      eval "$(relay completion zsh)"       (in ~/.zshrc, behind compinit)
      relay completion fish > ~/.config/fish/completions/relay.fish
    """
    wanted = one_of(shell, "SHELL", SHELLS)
    root = context.find_root()
    prepare()
    from typer.completion import shell_complete

    name = root.info_name or "relay"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        failed = shell_complete(root.command, {}, name, variable_of(name), f"source_{wanted}")
    if failed:
        raise Mistake(f"Typer cannot complete for {wanted}.", UNEXPECTED)
    sys.stdout.write(said.getvalue().strip() + "\n")  # zsh wants its mark in the first line


def variable_of(program: str) -> str:
    """By which a shell says that it wants words completed."""
    return f"_{program.replace('-', '_').upper()}_COMPLETE"


def completes(program: str, environment: Mapping[str, str]) -> bool:
    """Whether a shell asks for words; Typer then knows the shells."""
    asked = variable_of(program) in environment
    if asked:
        prepare()
    return asked


def prepare() -> None:
    """Lets Typer know the shells, as it does by itself for a command that has its options for completion."""
    from typer.completion import get_completion_inspect_parameters

    get_completion_inspect_parameters()
