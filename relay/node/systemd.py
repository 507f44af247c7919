"""What a service manager hands to this process and is told by it: sd_listen_fds(3), sd_notify(3). Where there is none,
nothing happens. The environment is passed in; what speaks to this process alone is taken out of it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, MutableMapping

from relay.node.errors import StartError
from relay.node.sockets import LISTENERS, NOTHING, Given, name_of

READY, STOPPING = "READY=1", "STOPPING=1"
# The first descriptor that is handed over.
_FIRST = 3


def inherited(environment: MutableMapping[str, str], closing: contextlib.ExitStack) -> Given:
    """What systemd, or who speaks like it, handed to this process; its variables are removed. Raises `StartError`."""
    pid, count, text = (environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count.isdigit() or not int(count):
        return NOTHING
    names = text.split(":") if text else []
    found: dict[str, socket.socket] = {}
    for number in range(int(count)):
        name = names[number] if len(names) == int(count) else LISTENERS[number % len(LISTENERS)]
        sock = closing.enter_context(_listening(_FIRST + number))
        if name not in LISTENERS or name in found:
            raise StartError(
                f"systemd handed over the socket {name_of(sock)} with the name {name!r}: give each socket unit one of "
                f"FileDescriptorName={', '.join(LISTENERS)}, and none twice."
            )
        found[name] = sock
    return Given(found, lent=True)


def _listening(descriptor: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
        sock.set_inheritable(False)
        if sock.type == socket.SOCK_STREAM and sock.family in (socket.AF_INET, socket.AF_INET6):
            return sock
        sock.detach()
    except OSError:
        pass
    raise StartError(
        f"The descriptor {descriptor} that LISTEN_FDS speaks of is no TCP socket; use ListenStream=HOST:PORT."
    )


def tell(environment: Mapping[str, str], what: str) -> None:
    """Says `READY` or `STOPPING`, if anybody asked to be told."""
    path = environment.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto(what.encode(), "\0" + path[1:] if path[0] == "@" else path)
