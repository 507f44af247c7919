"""How a look at something ends early."""

from __future__ import annotations


class Trouble(Exception):
    """What was found is not as it should be: the finding's message, and the next step for whoever reads it."""

    def __init__(self, message: str, next_step: str, level: str = "fail") -> None:
        super().__init__(message)
        self.next_step = next_step
        self.level = level
