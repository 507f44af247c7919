"""The OAuth side of the scripted client: what a server answers without a token, and a person who agrees to everything.

The SDK's own provider does discovery, registration, PKCE and the exchange; here is only what a browser and a person do.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlparse

from mcp.shared.auth import OAuthClientMetadata

CALLBACK = "http://127.0.0.1:1/callback"  # never opened: the redirect to it is read, not followed


class Wallet:
    """`TokenStorage` in memory."""

    def __init__(self) -> None:
        self.tokens: Any = None
        self.client: Any = None

    async def get_tokens(self) -> Any:
        """The tokens, once there are some."""
        return self.tokens

    async def set_tokens(self, tokens: Any) -> None:
        """Keep the tokens."""
        self.tokens = tokens

    async def get_client_info(self) -> Any:
        """What the client registered as."""
        return self.client

    async def set_client_info(self, client_info: Any) -> None:
        """Keep what the client registered as."""
        self.client = client_info


class Person:
    """Opens the authorization page in a "browser" and brings back the code."""

    def __init__(self, new_http: Any) -> None:
        self._new_http = new_http
        self._query: dict[str, list[str]] = {}

    async def open(self, url: str) -> None:
        """Follow the authorization address; the server agrees at once and redirects."""
        async with self._new_http() as http:
            answer = await http.get(url)
        if answer.status_code != 302:
            raise RuntimeError(f"{url} answered {answer.status_code}: {answer.text}")
        self._query = parse_qs(urlparse(answer.headers["location"]).query)

    def answer(self) -> tuple[str, str | None]:
        """The code and the state of the redirect."""
        return self._query["code"][0], self._query.get("state", [None])[0]


def metadata() -> OAuthClientMetadata:
    """What the client registers as."""
    return OAuthClientMetadata(
        client_name="scripted",
        redirect_uris=[CALLBACK],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
        scope="use",
    )


async def unauthorised_answers(http: Any, endpoint: str, base: str) -> dict[str, Any]:
    """The answers that lead a client to the authorization server."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accept = {"accept": "application/json, text/event-stream"}
    return {
        "without a token": await http.post(endpoint, json=message, headers=accept),
        "resource metadata": await http.get(f"{base}/.well-known/oauth-protected-resource/mcp"),
        "server metadata": await http.get(f"{base}/.well-known/oauth-authorization-server"),
    }
