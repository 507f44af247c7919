"""Which key an agent shows, to which relay, and whether it may travel there. No key is ever printed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from relay.cli.output import Mistake, harmless
from relay.settings import KEY_FILE_NAME, SettingsError, data_directory
from relay.wire.hello import MAX_KEY

DEFAULT_RELAY = "ws://127.0.0.1:8081"
_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


@dataclass(frozen=True, slots=True)
class Key:
    """A key and, for messages, where it was found."""

    text: str = field(repr=False)
    origin: str


def find_key(key_file: Path | None, environment: Mapping[str, str]) -> Key:
    """`--key-file`, then `RELAY_KEY`, then the key in the data directory of a relay on this machine.

    Raises `Mistake` when there is none, or the first that there is cannot be used.
    """
    if key_file is not None:
        path = key_file.expanduser()
        return Key(_checked(_read(path), f"the file {path}"), f"the file {path}")
    if environment.get("RELAY_KEY"):
        return Key(_checked(environment["RELAY_KEY"], "RELAY_KEY"), "RELAY_KEY")
    try:
        path = data_directory(environment) / KEY_FILE_NAME
    except SettingsError as error:
        raise Mistake(str(error)) from None
    try:
        text = _read(path)
    except Mistake as mistake:
        if not isinstance(mistake.__cause__, FileNotFoundError):
            raise
        raise Mistake(
            f"There is no key to show to the relay: give --key-file FILE or set RELAY_KEY "
            f"(a relay prints at its start where its key is; one of yours on this machine has it in {path})."
        ) from None
    return Key(_checked(text, f"the file {path}"), f"the file {path}")


def _read(path: Path) -> str:
    try:
        with path.open(encoding="ascii") as file:
            return file.read(MAX_KEY + 2)
    except OSError as error:
        raise Mistake(
            f"The key file {path} cannot be read ({error.strerror}): "
            f"give the relay's key with --key-file FILE or RELAY_KEY."
        ) from error
    except UnicodeError:
        raise Mistake(f"The key file {path} holds no key: a key is one line of visible ASCII characters.") from None


def _checked(text: str, origin: str) -> str:
    key = text.strip()
    if not re.fullmatch(r"[!-~]+", key) or len(key) > MAX_KEY:
        raise Mistake(
            f"What {origin} holds is not a key: a key is one line of visible ASCII characters, "
            f"as the relay's {KEY_FILE_NAME} holds it."
        )
    return key


def find_relay(flag: str | None, environment: Mapping[str, str], insecure: bool) -> str:
    """Scheme, host and port of the relay: `--relay`, then `RELAY_URL`, then `ws://127.0.0.1:8081`.

    Raises `Mistake` for what is no address, and where a key would cross a network in the clear without `insecure`.
    """
    origin = "--relay" if flag else "RELAY_URL"
    text = flag or environment.get("RELAY_URL") or DEFAULT_RELAY
    example = f"for example {origin}{' ' if flag else '='}wss://tunnels.example.com"
    try:
        url = urlsplit(text.strip())
        scheme, host, port = _SCHEMES.get(url.scheme), url.hostname, url.port
    except ValueError:
        scheme = host = port = None
    if scheme is None or host is None or not re.fullmatch(r"[0-9a-z._:-]+", host):
        raise Mistake(f"{origin} must be the relay's address, {example}, but it is {harmless(text)!r}.")
    if url.path not in {"", "/"} or url.query or url.fragment or "@" in url.netloc:
        raise Mistake(f"{origin} must be scheme, host and port alone, {example}, but it is {harmless(text)!r}.")
    place = f"[{host}]" if ":" in host else host
    if scheme == "ws" and not insecure and not is_loopback(host):
        raise Mistake(
            f"{scheme}://{place} would carry the key over the network in the clear, so it was not sent: "
            f"use wss://{place}, or --insecure if you trust every network between here and there."
        )
    return f"{scheme}://{place}" + (f":{port}" if port else "")


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine; names below `localhost` are, by RFC 6761 §6.3."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
