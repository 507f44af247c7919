"""Keys of a relay under test, made by hand: what docs/keys.md says and nothing of the product's code.

The operator key of the data directory signs requests to the API, which mints child and visitor keys.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
import zlib
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def request_token(key: str, audience: str = "127.0.0.1", life: float = 60.0) -> str:
    """A JWT that an operator or master key signs for one request."""
    kind, public_id, text = key.split("_")[1:4]
    number = 0
    for digit in text[:43]:
        number = number * 62 + DIGITS.index(digit)
    private = Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))
    kid, now = f"mtk_{kind}_{public_id}", time.time()
    claims = {"iss": kid, "aud": audience, "iat": int(now), "exp": int(now + life), "jti": secrets.token_hex(8)}
    headers = {"kid": kid, "typ": "mtk-request+jwt"}
    return jwt.encode(claims, private, algorithm="EdDSA", headers=headers)


def make_private() -> tuple[Ed25519PrivateKey, str]:
    """A key pair for a master key: the private half, and what the API is told of the public one."""
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return private, base64.urlsafe_b64encode(public).decode().rstrip("=")


def text_of(public_id: str, private: Ed25519PrivateKey) -> str:
    """An operator or master key as people see it."""
    secret = private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    body = f"{public_id}_{_base62(int.from_bytes(secret, 'big'), 43)}"
    return body + _base62(zlib.crc32(body.encode()), 6)


def forged(text: str) -> str:
    """A key whose checksum is right, and whose signature is not."""
    body = text[:-6]
    last = body[-10]
    body = body[:-10] + ("A" if last != "A" else "B") + body[-9:]
    return body + _base62(zlib.crc32(body.encode()), 6)


def _base62(number: int, length: int) -> str:
    digits = ""
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits = DIGITS[digit] + digits
    return digits


def operator_of(data: Path) -> str:
    """The operator key of a relay on this machine."""
    return (data / "operator.key").read_text().strip()


class Api:
    """The API of one relay, as whoever holds `key`; an operator or master key signs, any other is sent as it is."""

    def __init__(self, port: int, key: str) -> None:
        self.port = port
        self.key = key

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """(status, body)."""
        signs = self.key.startswith(("mtk_operator_", "mtk_master_"))
        bearer = request_token(self.key) if signs else self.key
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} /api/v1{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {bearer}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(head.encode() + data)
            async with asyncio.timeout(30):
                answer = await reader.read()
        finally:
            writer.close()
        top, _, rest = answer.partition(b"\r\n\r\n")
        return int(top.split()[1]), json.loads(rest) if rest else None

    async def do(self, method: str, path: str, body: object = None) -> Any:
        """The body of an answer that must be a good one."""
        status, answer = await self.ask(method, path, body)
        assert status < 300, (status, answer)
        return answer

    async def mint(self, kind: str = "child", **wanted: Any) -> str:
        """The text of a new child or visitor key."""
        return str((await self.do("POST", "/keys", {"kind": kind, **wanted}))["text"])

    async def create_project(self, name: str, **wanted: Any) -> Api:
        """A new project; the API as its master key."""
        private, public = make_private()
        made = await self.do("POST", "/projects", {"name": name, "master": {"public_key": public}, **wanted})
        return Api(self.port, text_of(made["master"]["id"], private))

    async def mint_master(self, project: str) -> Api:
        """The API as another master key of the project."""
        private, public = make_private()
        made = await self.do("POST", "/keys", {"kind": "master", "project": project, "public_key": public})
        return Api(self.port, text_of(made["key"]["id"], private))

    @property
    def id(self) -> str:
        """The public id of an operator or master key."""
        return self.key.rpartition("_")[0]
