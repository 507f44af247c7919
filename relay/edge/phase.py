"""The alphabet of a visitor's connection: what it is doing with what it reads."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Phase(IntEnum):
    """One at a time."""

    HEAD = 0
    """Reading a request head, or waiting for one."""
    HELD = 1
    """The request waits for an agent to come back."""
    BODY = 2
    """Reading the request's body."""
    WAIT = 3
    """The request is complete, its answer is not."""
    PIPE = 4
    """Upgraded: opaque bytes both ways."""
    OVER = 5
    """Nothing more is read."""
    PROVING = 6
    """The request waits until its password has been checked."""


# Members of an enum are slow to look up by their class, and these are looked up for every request.
HEAD: Final[Phase] = Phase.HEAD
HELD: Final[Phase] = Phase.HELD
BODY: Final[Phase] = Phase.BODY
WAIT: Final[Phase] = Phase.WAIT
PIPE: Final[Phase] = Phase.PIPE
OVER: Final[Phase] = Phase.OVER
PROVING: Final[Phase] = Phase.PROVING
