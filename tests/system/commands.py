"""Commands of one user, one after the other, and what each says: for tests that run many.

Each is a process of its own, forked off one that has loaded all that commands need, which takes longer than they do.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import runpy
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tests.support.child import Child, clean_environment
from tests.system.canaries import Canaries

DEADLINE = 60.0


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str


class Commands(Child):
    """`async with Commands(canaries, home, environment) as commands: await commands.run("keys", "list")`."""

    def __init__(self, canaries: Canaries, home: Path, environment: Mapping[str, str]) -> None:
        super().__init__([sys.executable, "-m", "tests.system.commands"], name="commands")
        self._canaries = canaries
        self._environment = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), **environment}
        self._numbers = itertools.count(1)

    async def run(self, *words: str, stdin: str = "", module: str = "relay", shows: str = "", **env: str) -> Ran:
        """Runs `relay WORDS`, or a module that does so. `shows`: its standard output is meant to hold a key, which is
        planted under this name.
        """
        number, seen = next(self._numbers), len(self.events)
        environment = clean_environment({**self._environment, **env})
        command = {"id": number, "words": words, "env": environment, "stdin": stdin, "module": module}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        ended = await self.wait_event(lambda event: event.get("id") == number, DEADLINE, after=seen)
        ran = Ran(ended["code"], ended["out"], ended["err"])
        name = " ".join(("relay", *words[:2]))
        out = ran.out
        if shows:
            keys = re.findall(r"mtk_[a-z]+_[0-9A-Za-z_.-]{30,}", out)
            assert len(keys) == 1, (ran.out, ran.err)
            out = out.replace(self._canaries.plant(shows, keys[0]), "(shown once)")
        self._canaries.heard(f"standard output of {name}", out)
        self._canaries.heard(f"standard error of {name}", ran.err)
        return ran


# ---- in the process


def _run(command: Mapping[str, Any]) -> tuple[int, str, str]:
    """Runs one command in a process of its own."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(command["stdin"].encode())
        given.seek(0)
        pid = os.fork()
        if not pid:
            for number, file in enumerate((given, out, err)):
                os.dup2(file.fileno(), number)
            _become(command)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
        return code, texts[0], texts[1]


def _become(command: Mapping[str, Any]) -> NoReturn:
    os.environ.clear()
    os.environ.update(command["env"])
    sys.argv = ["relay", *command["words"]]
    code = 0
    try:
        runpy.run_module(command["module"], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _main() -> None:
    importlib.import_module("relay.cli").app()
    importlib.import_module("relay.node")
    importlib.import_module("relay.agent.runner")
    for line in sys.stdin.buffer:
        command = json.loads(line)
        code, out, err = _run(command)
        print(json.dumps({"id": command["id"], "code": code, "out": out, "err": err}), flush=True)  # noqa: T201


if __name__ == "__main__":
    _main()
