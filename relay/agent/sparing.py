"""Of a tunnel's requests that go well, one after another, only the first is told. Pure."""

from __future__ import annotations

from collections.abc import Callable

Event = dict[str, object]


class Sparing:
    """Stands where a report does. Whoever makes an event of each request asks `wants` before, to make none in vain."""

    def __init__(self, report: Callable[[Event], None]) -> None:
        self._report = report
        self._well: set[str] = set()
        """Tunnels whose last request went well."""

    def wants(self, name: str, status: int, error: str) -> bool:
        """Whether it tells of this end of a request; `name` is the tunnel's, `error` is empty without one."""
        return name not in self._well or status >= 400 or error != ""

    def __call__(self, event: Event) -> None:
        """Tells of it, unless it is a request that it does not want."""
        match event:
            case {"event": "request", "subdomain": str(name), "status": int(status)}:
                error = str(event.get("error", ""))
                if not self.wants(name, status, error):
                    return
                (self._well.discard if error or status >= 400 else self._well.add)(name)
        self._report(event)
