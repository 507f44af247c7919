"""What was typed becomes a value here if it is plain, and by Typer if it is not, or must be complained of.

Typer does it by pydantic, for every parameter: 10 MiB in a process that runs for months, and a good part of the time of
each start. The only room that knows the inside of Typer; where that is another one, Typer does it all.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import typer

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})", re.ASCII)
# Of what is said of a parameter: a value that must obey one of these is not plain.
_RULES = ("parser", "min", "max", "clamp", "exists", "writable", "resolve_path", "allow_dash", "path_type")
# And one of which one of these is said not to be.
_DENIALS = ("file_okay", "dir_okay", "readable")


class _NotPlainError(Exception):
    """Typer is to look at it."""


class _Plain:
    """Stands where Typer keeps how one parameter's values are made."""

    def __init__(self, annotation: object) -> None:
        self._annotation = annotation

    def coerce(self, value: Any, param: Any, ctx: Any) -> object:  # noqa: ANN401
        many = param.multiple or param.nargs == -1
        try:
            if value is None:
                return () if many else None
            return _MAKERS[self._annotation](value)
        except _NotPlainError:
            param._runtime_param = None
            return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def _text(value: object) -> str:
    if type(value) is not str:
        raise _NotPlainError
    try:
        value.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8
        raise _NotPlainError from None
    return value


def _texts(value: object) -> list[str]:
    if type(value) not in {list, tuple}:
        raise _NotPlainError
    return [_text(one) for one in value]  # type: ignore[attr-defined]


def _integer(value: object) -> int:
    if type(value) is int:
        return value
    if not _INTEGER.fullmatch(_text(value)):
        raise _NotPlainError
    return int(_text(value))


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise _NotPlainError
    return value


def _path(value: object) -> Path:
    path = value if isinstance(value, Path) else Path(_text(value))
    try:
        os.stat(path)
    except OSError:
        return path
    if not os.access(path, os.R_OK):
        raise _NotPlainError
    return path


_MAKERS: dict[object, Any] = {bool: _flag, str: _text, list[str]: _texts, int: _integer, Path: _path}


def make_plain_ones_here(command: Any, help_names: list[str]) -> Any:  # noqa: ANN401
    """The same command of Typer's, whose parameters and those of its commands are turned into values by this room.

    `help_names`: those of the option for help, which Typer makes by itself.
    """
    context = typer.Context(command, help_option_names=help_names)
    for param in (*command.params, command.get_help_option(context)):
        descriptor = getattr(param, "type_descriptor", None)
        if not hasattr(param, "_runtime_param") or descriptor is None or descriptor.annotation not in _MAKERS:
            continue
        said = descriptor.parameter_info
        ruled = any(getattr(said, rule, None) not in {None, False} for rule in _RULES)
        if not ruled and all(getattr(said, one, True) for one in _DENIALS):
            param._runtime_param = _Plain(descriptor.annotation)
    for one in getattr(command, "commands", {}).values():
        make_plain_ones_here(one, help_names)
    return command
