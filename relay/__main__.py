"""The command `relay`, also as `python -m relay`: health checks at once, everything else by the command line."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The entry point. Always ends by `SystemExit`."""
    open_what_is_closed()
    if sys.argv[1:2] == ["health"] and not {"-h", "--help"}.intersection(sys.argv):
        from relay import health

        sys.exit(health.main(sys.argv[2:]))
    from relay.cli import main as command

    command()


def open_what_is_closed() -> None:
    """Standard streams that were closed lead nowhere from now on: else the next file or socket would get the number of
    one, and have in it what is said there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8", errors="replace"))


if __name__ == "__main__":
    main()
