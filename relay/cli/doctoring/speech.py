"""What a local service speaks: HTTP, MCP in which of its forms, WebSocket. It is asked as a client would ask, and what
that opens is closed again.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from dataclasses import dataclass, field
from typing import Any

from relay import __version__
from relay.cli.doctoring.errors import Trouble
from relay.cli.doctoring.talk import Answer, Fields, asked, object_of
from relay.cli.doctoring.ways import Place
from relay.cli.output import harmless

INITIALIZED = "2025-11-25"
"""The newest version of MCP that begins with `initialize`; later ones begin with `server/discover`."""
DISCOVERED = "2026-07-28"
ENDPOINTS = ("/mcp", "/")
OLD_ENDPOINT = "/sse"
SOCKETS = ("/", "/ws")
EACH_WITHIN = 2.0
MOST_SHOWN = 80
"""Characters of what a server says of itself."""
_JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
_CLIENT = {"name": "relay-doctor", "version": __version__}
_META = "io.modelcontextprotocol/"


@dataclass(slots=True)
class Spoken:
    """What was heard."""

    status: int
    """Of the answer to GET /."""
    languages: list[str] = field(default_factory=list)
    """Sentences' ends: `MCP 2025-11-25 at /mcp …`."""
    details: dict[str, object] = field(default_factory=dict)


async def spoken_by(place: Place) -> Spoken:
    """What the service at a place speaks. Raises `Trouble` if it speaks no HTTP."""
    try:
        async with asyncio.timeout(EACH_WITHIN):
            talk, answer = await asked(place, "GET", "/", {"Connection": "close"})
            talk.line.close()
    except TimeoutError:
        raise Trouble(
            f"{place.shown} takes a connection and does not answer GET / within {EACH_WITHIN:g} seconds",
            "Look at its own log; is it busy, or does it wait for TLS (then give TARGET as https://…)?",
        ) from None
    found = Spoken(answer.status)
    for look in (_mcp, _old_mcp, _websocket):
        try:
            async with asyncio.timeout(2 * EACH_WITHIN):
                if await look(place, found) and look is not _websocket:
                    break
        except (Trouble, TimeoutError):
            continue
    return found


# ---------------------------------------------------------------------------------------------- MCP


async def _mcp(place: Place, found: Spoken) -> bool:
    """Streamable HTTP: `initialize`, and for a server that is too new for it `server/discover`."""
    for path in ENDPOINTS:
        params: dict[str, Any] = {"protocolVersion": INITIALIZED, "capabilities": {}, "clientInfo": _CLIENT}
        answer, said = await _call(place, path, "initialize", params, {})
        if answer.status in (401, 403) and "www-authenticate" in answer.fields:
            found.languages.append(f"perhaps MCP at {path}, which asks for authorization (HTTP {answer.status})")
            found.details.update(mcp_path=path, mcp_authorization=True)
            return True
        if "result" in said:
            _tell(found, path, answer, said["result"])
            await _end(place, path, answer, str(said["result"].get("protocolVersion", INITIALIZED)))
            return True
        if "error" in said and await _discovered(place, path, found):
            return True
    return False


async def _discovered(place: Place, path: str, found: Spoken) -> bool:
    meta = {f"{_META}protocolVersion": DISCOVERED, f"{_META}clientCapabilities": {}, f"{_META}clientInfo": _CLIENT}
    fields = {"MCP-Protocol-Version": DISCOVERED, "Mcp-Method": "server/discover"}
    answer, said = await _call(place, path, "server/discover", {"_meta": meta}, fields)
    if "result" not in said:
        return False
    versions = said["result"].get("supportedVersions")
    newest = max(map(str, versions), default=DISCOVERED) if isinstance(versions, list) else DISCOVERED
    _tell(found, path, answer, {"protocolVersion": newest, **said["result"]})
    return True


async def _call(
    place: Place, path: str, method: str, params: dict[str, Any], fields: Fields
) -> tuple[Answer, dict[str, Any]]:
    """One JSON-RPC request; the message that answers it, empty if none does."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    async with asyncio.timeout(EACH_WITHIN):
        talk, answer = await asked(place, "POST", path, {**_JSON, **fields}, body)
        try:
            text = await talk.event() if answer.kind == "text/event-stream" else await talk.whole()
        finally:
            talk.line.close()
    said = object_of(text)
    known = said.get("jsonrpc") == "2.0" and isinstance(said.get("result", said.get("error")), dict)
    return answer, said if known else {}


def _tell(found: Spoken, path: str, answer: Answer, result: dict[str, Any]) -> None:
    version = harmless(result.get("protocolVersion", "of an unknown version"))[:MOST_SHOWN]
    server = result.get("serverInfo")
    name = harmless(server.get("name", ""))[:MOST_SHOWN] if isinstance(server, dict) else ""
    form = "SSE" if answer.kind == "text/event-stream" else "JSON"
    session = "mcp-session-id" in answer.fields
    found.languages.append(
        f"MCP {version} at {path} (streamable HTTP, answered as {form}, {'with' if session else 'without'} a session"
        + (f"; {name})" if name else ")")
    )
    found.details.update(mcp_path=path, mcp_version=version, mcp_answer=form.lower(), mcp_session=session)
    found.details.update(mcp_transport="streamable-http", mcp_server=name)


async def _end(place: Place, path: str, answer: Answer, version: str) -> None:
    """Deletes the session that was opened."""
    session = answer.fields.get("mcp-session-id")
    if session is None or not (session + version).isascii() or not (session + version).isprintable():
        return  # none, or what no field may hold
    fields = {"Mcp-Session-Id": session, "MCP-Protocol-Version": version, "Connection": "close"}
    talk, _ = await asked(place, "DELETE", path, fields)
    talk.line.close()


async def _old_mcp(place: Place, found: Spoken) -> bool:
    """HTTP+SSE of 2024-11-05: a stream whose first event names where to post."""
    talk, answer = await asked(place, "GET", OLD_ENDPOINT, {"Accept": "text/event-stream"})
    try:
        if answer.status != 200 or answer.kind != "text/event-stream":
            return False
        endpoint = await talk.event()
    finally:
        talk.line.close()
    if not endpoint.startswith(("/", "http://", "https://")):
        return False
    found.languages.append(f"MCP at {OLD_ENDPOINT} by the old transport, HTTP+SSE of 2024-11-05")
    found.details.update(mcp_path=OLD_ENDPOINT, mcp_version="2024-11-05", mcp_transport="http+sse")
    return True


# ---------------------------------------------------------------------------------------------- WebSocket


async def _websocket(place: Place, found: Spoken) -> bool:
    fields = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    for path in SOCKETS:
        async with asyncio.timeout(EACH_WITHIN):
            talk, answer = await asked(place, "GET", path, fields)
        talk.line.close()
        if answer.status == 101:
            found.languages.append(f"WebSocket at {path}")
            found.details.update(websocket_path=path)
            return True
    return False
