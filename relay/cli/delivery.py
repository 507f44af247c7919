"""How a new key reaches whoever asked for it: once, on the screen or in a file that only they can read."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from relay.cli.output import Lines, harmless
from relay.cli.secretfiles import SecretFile
from relay.keys.forms import Kind

_ONCE = {
    True: "It is shown this once, and the relay has no more than its public half: keep it where nobody else reads it.",
    False: "It is shown this once: keep it where nobody else reads it.",
}


class Place(Protocol):
    """Where a key goes; see `SecretFile`."""

    def write(self, text: str) -> None: ...

    def keep(self) -> None: ...


class _Screen:
    def write(self, text: str) -> None: ...

    def keep(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """What `--key-out` and `--quiet` said."""

    key_out: Path | None
    quiet: bool

    def place(self, *, replace: bool = False) -> AbstractContextManager[Place]:
        """Made before anything is asked of the relay, so that no key is minted that could not be kept."""
        return nullcontext(_Screen()) if self.key_out is None else SecretFile(self.key_out, replace=replace)

    def say(self, lead: str, text: str, kind: Kind, more: Sequence[str] = ()) -> None:
        """Prints the key behind `lead`, or where it is, and then the sentences of `more`."""
        lines = Lines()
        if self.quiet:
            if self.key_out is None:
                lines.say(text)
            return
        lines.say(f"{lead}: {text if self.key_out is None else f'in {harmless(self.key_out)}'}")
        if self.key_out is None:
            lines.say(_ONCE[kind.private])
        for line in more:
            lines.say(line)

    def json(self, text: str) -> dict[str, object]:
        """The members `text` and `file`, one of them null."""
        file = None if self.key_out is None else str(self.key_out)
        return {"text": text if file is None else None, "file": file}
