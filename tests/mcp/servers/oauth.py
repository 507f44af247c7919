"""The authorization server of a sample MCP server (the SDK's own routes), and the ways in which it learns its address.

Nobody signs in: whoever asks for a code gets one. Everything is in memory. `Readdressed` is the server that builds its
addresses from what a proxy tells it, which the SDK's settings cannot do by themselves.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

import mcp.server.auth.routes as auth_routes
from mcp.server.auth.provider import AccessToken, AuthorizationCode, RefreshToken, construct_redirect_uri
from mcp.server.auth.settings import AuthSettings, ClientRegistrationOptions
from mcp.shared.auth import OAuthToken
from pydantic import AnyHttpUrl

LIFE = 3600  # seconds


class OpenDoor:
    """`OAuthAuthorizationServerProvider` that grants whatever is asked for."""

    def __init__(self) -> None:
        self.clients: dict[str, Any] = {}
        self.codes: dict[str, AuthorizationCode] = {}
        self.tokens: dict[str, AccessToken] = {}

    async def get_client(self, client_id: str) -> Any:
        """The client that registered under this identifier."""
        return self.clients.get(client_id)

    async def register_client(self, client_info: Any) -> None:
        """Dynamic client registration."""
        self.clients[client_info.client_id] = client_info

    async def authorize(self, client: Any, params: Any) -> str:
        """Redirect back at once, with a code."""
        code = secrets.token_urlsafe(24)
        self.codes[code] = AuthorizationCode(
            code=code,
            client_id=client.client_id,
            scopes=params.scopes or [],
            expires_at=time.time() + LIFE,
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
            resource=params.resource,
        )
        return construct_redirect_uri(str(params.redirect_uri), code=code, state=params.state)

    async def load_authorization_code(self, client: Any, authorization_code: str) -> AuthorizationCode | None:
        """The code as it was given out."""
        return self.codes.get(authorization_code)

    async def exchange_authorization_code(self, client: Any, authorization_code: AuthorizationCode) -> OAuthToken:
        """A code is good once."""
        del self.codes[authorization_code.code]
        token = secrets.token_urlsafe(24)
        scopes = authorization_code.scopes
        self.tokens[token] = AccessToken(
            token=token,
            client_id=client.client_id,
            scopes=scopes,
            expires_at=int(time.time()) + LIFE,
            resource=authorization_code.resource,
        )
        return OAuthToken(access_token=token, token_type="Bearer", expires_in=LIFE, scope=" ".join(scopes))

    async def load_access_token(self, token: str) -> AccessToken | None:
        """The token as it was given out."""
        return self.tokens.get(token)

    async def load_refresh_token(self, client: Any, refresh_token: str) -> RefreshToken | None:
        """No refresh tokens are given out."""
        return None

    async def exchange_refresh_token(self, client: Any, refresh_token: Any, scopes: list[str]) -> OAuthToken:
        """No refresh tokens are given out."""
        raise NotImplementedError

    async def revoke_token(self, token: Any) -> None:
        """Forget a token."""
        self.tokens.pop(token.token, None)


def settings_for(origin: str) -> AuthSettings:
    """The SDK's settings for a server that is its own authorization server at this origin."""
    # The SDK takes plain http for "localhost" and "127.0.0.1" only; names below .localhost are loopback too (RFC 6761).
    auth_routes.validate_issuer_url = lambda url: None
    return AuthSettings(
        issuer_url=AnyHttpUrl(origin),
        resource_server_url=AnyHttpUrl(f"{origin}/mcp"),
        client_registration_options=ClientRegistrationOptions(
            enabled=True, valid_scopes=["use"], default_scopes=["use"]
        ),
        required_scopes=["use"],
    )


class Readdressed:
    """ASGI application that names itself by what the request says: `X-Forwarded-*` or `Host`, instead of its own port.

    Rewrites requests' resource indicators and answers' headers and bodies between the two origins, both ways.
    """

    def __init__(self, app: Any, local: str, source: str) -> None:
        self.app = app
        self.local = local
        self.source = source

    def _origin(self, headers: dict[bytes, bytes]) -> str:
        host = headers[b"host"].decode()
        proto = headers.get(b"x-forwarded-proto", b"http").decode()
        if self.source == "forwarded":
            host = headers.get(b"x-forwarded-host", host.encode()).decode()
        return f"{proto}://{host}"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        named = scope["type"] == "http" and not scope["path"].startswith("/mcp")
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        origin = self._origin(dict(scope["headers"]))
        parts: list[bytes] = []
        head: dict[str, Any] = {}

        async def readdressing_send(message: Any) -> None:
            if message["type"] == "http.response.start":
                swap = (self.local.encode(), origin.encode())
                message["headers"] = [(name, value.replace(*swap)) for name, value in message["headers"]]
                if named:
                    head.update(message)
                    return
            elif named:
                parts.append(message.get("body", b""))
                if message.get("more_body"):
                    return
                body = b"".join(parts).replace(self.local.encode(), origin.encode())
                kept = [(name, value) for name, value in head["headers"] if name != b"content-length"]
                await send({**head, "headers": [*kept, (b"content-length", str(len(body)).encode())]})
                message = {"type": "http.response.body", "body": body}
            await send(message)

        await self.app(scope, receive, readdressing_send)
