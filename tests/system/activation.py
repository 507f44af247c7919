"""What systemd does for a service with sockets (sd_listen_fds(3)).

    python -m tests.system.activation NAME=FD… -- ARGV

The descriptors are put at 3 and on, the environment says which is which, and the process becomes ARGV.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Does not return."""
    split = sys.argv.index("--")
    named = [word.split("=") for word in sys.argv[1:split]]
    kept = [(name, os.dup2(int(number), 100 + place)) for place, (name, number) in enumerate(named)]
    for place, (_, number) in enumerate(kept):
        os.dup2(number, 3 + place)
    for _, number in kept:
        os.close(number)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(kept)))
    os.environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in kept)
    os.execv(sys.argv[split + 1], sys.argv[split + 1 :])


if __name__ == "__main__":
    main()
