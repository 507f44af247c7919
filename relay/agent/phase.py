"""The alphabet of a connection to the local service: what became of the answer, in the order in which it happens."""

from __future__ import annotations

from typing import Final

# Plain numbers: they are compared several times a request.
IDLE: Final = 0
ASKED: Final = 1
"""Nothing came of it, and the request is complete."""
SENDING: Final = 2
"""Nothing came of it, and more of the request may follow."""
HEAD: Final = 3
"""Something came, not yet its final head."""
BODY: Final = 4
PIPE: Final = 5
OVER: Final = 6
"""It is complete, and the request is not."""
CLOSED: Final = 7
