"""What the access log tells of an exchange, and how it looks: one line, JSON for programs or text for people. Pure.

No value of a header field but of those made to be logged (`guard.LOGGED`), no query unless it is asked for, and
nothing that came from a visitor can end a line or colour it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from relay.edge.account import Account
from relay.keys.forms import without_keys

Record = Mapping[str, Any]

# Characters of a path, a query or another's word that are kept.
MOST = 1024
# W3C Trace Context §3.2: version, trace id, parent id, flags.
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")


def record_of(account: Account, now: float, with_query: bool) -> Record:
    """What is told of an exchange. `now`: seconds since the epoch."""
    request = account.request
    record: dict[str, Any] = {
        "now": now,
        "request_id": account.request_id,
        "client": account.client,
        "tunnel": account.tunnel,
        "key_id": account.key_id,
        "visitor_key_id": account.visitor_key_id,
        "status": account.status,
        "answered_by": "relay" if account.error else "local" if account.status else "",
        "error": account.error,
        "ended": account.ended,
        "bytes_in": account.bytes_in,
        "bytes_out": account.bytes_out,
        "duration": account.over_at - account.began,
        "first_byte": account.head_at - account.began if account.status else None,
    }
    if request is not None:
        path, mark, query = request.target.partition(b"?")
        record["method"] = request.method
        record["host"] = request.host.authority[:MOST]
        record["path"] = path[:MOST]
        if mark and with_query:
            record["query"] = query[:MOST]
        record["http"] = "1.0" if request.http10 else "1.1"
        if request.logged:
            _add_logged(record, request.logged)
    return record


def _add_logged(record: dict[str, Any], logged: Mapping[bytes, bytes]) -> None:
    for name, member in ((b"mcp-method", "mcp_method"), (b"mcp-name", "mcp_name")):
        if name in logged:
            record[member] = logged[name][:MOST]
    trace = _TRACEPARENT.fullmatch(logged.get(b"traceparent", b""))
    if trace is not None:
        record["trace_id"], record["parent_id"] = trace.groups()


def as_json(record: Record) -> str:
    """A line of JSON. Times are in seconds; members that have nothing to say are left out."""
    first = "" if record["first_byte"] is None else f', "time_to_first_byte": {record["first_byte"]:.6f}'
    line = (
        f'{{"time": "{stamp(record["now"])}", "level": "info", "logger": "relay.access", '
        f'"status": {record["status"]}, "ended": "{record["ended"]}", "bytes_in": {record["bytes_in"]}, '
        f'"bytes_out": {record["bytes_out"]}, "duration": {record["duration"]:.6f}{first}'
    )
    for name in _NAMED:
        value = record.get(name)
        if value:
            line += f', "{name}": {quoted(_shown(value) if isinstance(value, bytes) else value)}'
    return line + "}\n"


def as_text(record: Record) -> str:
    """A line for people: when, who asked what of whom, what came of it, and the names to find it by elsewhere."""

    def told(name: str) -> str:
        value = record.get(name) or "-"
        text = _shown(value) if isinstance(value, bytes) else str(value)
        return text if text.isprintable() else "".join([c if c.isprintable() else "?" for c in text])

    asked = f"{told('method')} {told('host')}{told('path')}" if "method" in record else "no request"
    if "query" in record:
        asked += f"?{told('query')}"
    line = (
        f'{stamp(record["now"])} {told("client")} "{asked}" {told("status")} '
        f"{record['error'] or told('answered_by')} {record['duration'] * 1000:.1f}ms "
        f"in={record['bytes_in']} out={record['bytes_out']}"
    )
    if record["ended"] != "complete":
        line += f" {record['ended']}"
    for name, label in _LABELS:
        if record.get(name):
            line += f" {label}={told(name)}"
    return line + "\n"


def _shown(value: bytes) -> str:
    """What a visitor sent, without keys."""
    return without_keys(value.decode("latin-1"))


_NAMED = (
    "request_id", "client", "tunnel", "key_id", "visitor_key_id", "answered_by", "error", "method", "host", "path",
    "query", "http", "mcp_method", "mcp_name", "trace_id", "parent_id",
)  # fmt: skip
_LABELS = (
    ("mcp_method", "mcp_method"), ("mcp_name", "mcp_name"), ("trace_id", "trace"), ("request_id", "request"),
    ("key_id", "key"), ("visitor_key_id", "visitor_key"),
)  # fmt: skip
FORMATS: Mapping[str, Callable[[Record], str]] = {"console": as_text, "json": as_json}


def stamp(now: float) -> str:
    """Seconds since the epoch as RFC 3339 writes them, in UTC, with milliseconds."""
    seconds, thousandths = divmod(round(now * 1000), 1000)
    return f"{_second(seconds)}.{thousandths:03d}Z"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
