"""The edges that visitors meet: our own protocol class, and the same exchange behind ASGI servers; what ASGI cannot do.

A test that needs one of the abilities below says so with `needs`; it is skipped for the edges that lack it, and for no
other reason.
"""

from __future__ import annotations

from typing import get_args

from tests.support.processes import Edge

EDGES: tuple[Edge, ...] = get_args(Edge)
