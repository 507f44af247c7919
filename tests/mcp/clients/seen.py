"""What went through a client's HTTP connection: the session it was given and the requests it sent.

Filled by the HTTP library's event hooks, which both SDK generations let a program set; reads nothing inside the SDKs.
"""

from __future__ import annotations

import json
from typing import Any


class Seen:
    """One client's traffic."""

    def __init__(self) -> None:
        self.http: Any = None
        self.session: str = ""
        self._calls: list[tuple[str, Any]] = []

    def hooks(self) -> dict[str, Any]:
        """The `event_hooks` for the HTTP client."""
        return {"request": [self._on_request], "response": [self._on_response]}

    async def _on_request(self, request: Any) -> None:
        if request.method == "POST" and request.headers.get("content-type") == "application/json":
            message = json.loads(request.content)
            if message.get("method") == "tools/call":
                self._calls.append((message["params"]["name"], message["id"]))

    async def _on_response(self, response: Any) -> None:
        self.session = response.headers.get("mcp-session-id", self.session)

    def last_call(self, tool: str) -> Any:
        """The JSON-RPC id of the last call of this tool."""
        return next(number for name, number in reversed(self._calls) if name == tool)
