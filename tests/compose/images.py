"""Prints the images of docker-compose.yaml that come from elsewhere, and those that ours are built from, one a line."""

from __future__ import annotations

import re
import sys

import yaml

from tests.compose.engine import ROOT

OPTIONAL = "grafana/grafana"
"""Tested where it can be had."""


def foreign() -> set[str]:
    """What the compose file takes as it is."""
    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text(encoding="utf-8"))["services"]
    return {default_of(one["image"]) for one in services.values() if "image" in one and "build" not in one}


def needed() -> list[str]:
    """All but the optional one, and what ours are built from."""
    (base,) = re.findall(r"^ARG PYTHON=(\S+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    return sorted({f"python:{base}-slim", *(one for one in foreign() if not one.startswith(OPTIONAL))})


def default_of(text: str) -> str:
    """`${NAME:-value}` is value."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


if __name__ == "__main__":
    sys.stdout.write("\n".join(needed()) + "\n")
