"""Prints what pyproject.toml asks for, one package a line: the plain packages and those of the extras that are named.

    requirements.py [EXTRA]...

For the image, which installs these before it has the code; needs the standard library and a pyproject.toml beside it.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def main() -> None:
    """Reads the file of the working directory."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(one for extra in sys.argv[1:] for one in project["optional-dependencies"][extra]),
    ]
    sys.stdout.write("".join(f"{one}\n" for one in wanted))


if __name__ == "__main__":
    main()
