"""What `relay doctor` looks at. Nothing here is imported before it is asked for: most commands need none of it."""

from __future__ import annotations
