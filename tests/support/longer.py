"""What a short run leaves out: cases that repeat with other partners what a short run has shown with these."""

from __future__ import annotations

import os

import pytest

CHAOS = bool(os.environ.get("RELAY_CHAOS"))
LONGER = (pytest.mark.chaos, pytest.mark.skipif(not CHAOS, reason="another combination; all of them in `make chaos`"))
