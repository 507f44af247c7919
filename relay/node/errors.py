"""What stops a node from starting; the text is for the operator."""

from __future__ import annotations


class StartError(Exception):
    """One sentence with the cause and the next step."""
