"""How a command fails: one sentence with the cause and the next step, and the exit code (docs/commands.md)."""

from __future__ import annotations

UNEXPECTED = 1
# `keys scan` found a key that lives, `audit verify` a row that was changed.
FOUND = 1
# Asked whether to do it, somebody did not say yes.
NOT_DONE = 1
USAGE = 2
KEY_REFUSED = 3
REFUSED = 4
UNAVAILABLE = 8


class Mistake(Exception):
    """One sentence with the cause and the next step, for whoever gave the command. `code` is the exit code."""

    def __init__(self, text: str, code: int = USAGE) -> None:
        super().__init__(text)
        self.code = code


class NoKey(Mistake):
    """No place that a key may be in holds one."""


class Refusal(Mistake):
    """The relay answered, and said no. `status` is HTTP's."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text, KEY_REFUSED if status in {401, 403} else REFUSED)
        self.status = status


class Unavailable(Mistake):
    """The relay gave no answer of its own, or cannot do it now; later it may."""

    def __init__(self, text: str) -> None:
        super().__init__(text, UNAVAILABLE)
