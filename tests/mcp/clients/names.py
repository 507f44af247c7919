"""Names below `.localhost` are this machine (RFC 6761, section 6.3), also where the system's resolver knows none.

glibc resolves `localhost` but, without nss-myhostname, not `NAME.tunnels.localhost`. Browsers and curl do this by
themselves; the SDKs' HTTP clients ask the system. Importing this room makes `socket.getaddrinfo` answer like curl.
"""

from __future__ import annotations

import socket
from typing import Any

_system_getaddrinfo = socket.getaddrinfo


def _getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if isinstance(name, str) and name.rstrip(".").lower().endswith(".localhost"):
        host = "127.0.0.1"
    return _system_getaddrinfo(host, *args, **kwargs)


socket.getaddrinfo = _getaddrinfo
