"""The command `relay`, also as `python -m relay`: health checks at once, everything else by the command line."""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point. Always ends by `SystemExit`."""
    if sys.argv[1:2] == ["health"] and not {"-h", "--help"}.intersection(sys.argv):
        from relay import health

        sys.exit(health.main(sys.argv[2:]))
    from relay.cli import main as command

    command()


if __name__ == "__main__":
    main()
