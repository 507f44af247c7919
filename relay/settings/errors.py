"""What the settings raise."""

from __future__ import annotations


class SettingsError(Exception):
    """A setting is wrong; the text is one sentence for the operator."""
