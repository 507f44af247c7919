"""What is known of one exchange when it is over: filled in as it goes, then counted and logged by others. Pure."""

from __future__ import annotations

from typing import Final

from relay.edge.answers import TABLE, Code
from relay.edge.guard import Request

# How an exchange ended. Whatever nobody says anything else of, the visitor has left.
VISITOR_LEFT: Final = "visitor_left"
COMPLETE: Final = "complete"
BROKEN_OFF: Final = "broken_off"
CUT: Final = "cut"
# It goes on in another process, which tells of it.
HANDED_OVER: Final = "handed_over"


class Account:
    """One exchange, or one request that was refused before it could become one. Times are monotonic, in seconds: of the
    clock itself, since a loop's may count in milliseconds."""

    # Of the class, until an exchange has its own: most of it never changes.
    client = ""
    """The visitor's address, as far as it is known; filled in at the end, if anybody wants it."""
    tunnel = ""
    """The name that was called, once it turned out to be one."""
    key_id = ""
    """Of the agent whose link the exchange is on."""
    visitor_key_id = ""
    status = 0
    """Of the final answer; 0: there was none."""
    error = ""
    """The relay's own code, where it was the relay that answered."""
    ended = VISITOR_LEFT
    head_at = 0.0
    """When the final answer began; 0: it did not."""
    over_at = 0.0
    bytes_in = 0
    """Of the request's body, or from the visitor once upgraded."""
    bytes_out = 0

    def __init__(self, request: Request | None, request_id: str, began: float) -> None:
        self.request = request
        """None: its head was never read to the end, or is no request."""
        self.request_id = request_id
        self.began = began

    def refuse(self, code: Code, now: float) -> None:
        """The relay answers by itself."""
        self.status, self.error, self.ended, self.head_at = TABLE[code].status, code.value, COMPLETE, now
