"""The transcript of a scripted run: what happened, step by step, with all that differs from run to run replaced.

Two runs of one script that a visitor could tell apart differ here; session identifiers, keys, ports, addresses and
times do not appear.
"""

from __future__ import annotations

import json
import re
from typing import Any

HIDDEN = {"mcp-session-id", "date", "server", "connection", "keep-alive", "transfer-encoding"}  # the last: per hop


class Transcript:
    """Steps with their results, in order."""

    def __init__(self, origin: str) -> None:
        self.steps: list[dict[str, Any]] = []
        self._replace: list[tuple[str, str]] = [(origin, "ORIGIN")]

    def hide(self, value: str, word: str) -> None:
        """From now on this value is written as that word."""
        if value:
            self._replace.append((value, word))

    def add(self, step: str, result: Any) -> None:
        """Note one step with what came of it (anything that JSON can hold, or an SDK model)."""
        self.steps.append({"step": step, "result": plain(result)})

    def steps_hidden(self) -> list[dict[str, Any]]:
        """All steps, with the hidden values replaced."""
        text = json.dumps(self.steps, sort_keys=True)
        for value, word in sorted(self._replace, key=lambda pair: -len(pair[0])):
            text = text.replace(json.dumps(value)[1:-1], word)
        # an identifier of a session or a client that an error text might quote
        steps: list[dict[str, Any]] = json.loads(
            re.sub(r"\b[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\b", "ID", text)
        )
        return steps


def plain(value: Any) -> Any:
    """SDK models of either generation as the JSON that went over the wire."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def shape(answer: Any) -> dict[str, Any]:
    """An HTTP answer as status, headers that a script may rely on, and body (JSON where it is)."""
    headers = {name.lower(): value for name, value in answer.headers.items() if name.lower() not in HIDDEN}
    body = answer.text
    if "json" in headers.get("content-type", "") and body:
        body = json.loads(body)
        headers.pop("content-length", None)  # bodies hold addresses of different length
    return {"status": answer.status_code, "headers": headers, "body": body}
