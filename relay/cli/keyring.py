"""Which key is shown to which relay, and whether it may travel there. A mistyped key goes nowhere; none is printed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from relay.agent.targets import is_loopback
from relay.cli.errors import Mistake, NoKey
from relay.cli.output import harmless
from relay.cli.secretfiles import login_path, placed, read_login, read_secret
from relay.keys.errors import BadKey
from relay.keys.forms import Kind, check_text, shown

DEFAULT_RELAY = "ws://127.0.0.1:8081"
VARIABLES = ("RELAY_KEY", "RELAY_MASTER_KEY", "MTK_MASTER")
_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_PORTS = {"ws": 80, "wss": 443}
# How an address is written where it stands; the last is the member of a file.
_WRITTEN = {"RELAY_URL": "RELAY_URL=", "relay": "relay: "}
# More of a key than its id, mistyped or cut short as it may be.
_SECRET = re.compile(
    r"mtk_(?:operator|master)_[0-9A-Za-z]{12}_[0-9A-Za-z]{8}|mtk_(?:child|visitor)_eyJ[0-9A-Za-z_-]+\.[0-9A-Za-z_-]"
)


# ---------------------------------------------------------------------------------------------------- keys


@dataclass(frozen=True, slots=True)
class Key:
    """A key and, for messages, where it was found."""

    text: str = field(repr=False)
    origin: str
    kind: Kind

    @property
    def id(self) -> str:
        """The public id, which may be shown."""
        return shown(self.text)


def find_key(key_file: Path | None, environment: Mapping[str, str], relay: str) -> Key:
    """The first key that there is, in the order of `keys_at_hand`.

    Raises `Mistake` when it cannot be used, `NoKey` when there is none.
    """
    for key in keys_at_hand(key_file, environment, relay):
        return key
    elsewhere = ""
    login = read_login(environment)
    if login is not None:
        elsewhere = f"; the login is for {harmless(login.relay)}, and this is {relay}"
    raise NoKey(
        "There is no key to show to the relay: log in with relay login, give --key-file FILE, or set RELAY_KEY "
        f"or RELAY_MASTER_KEY (a relay of yours on this machine has one in {_operator_key(environment)}{elsewhere})."
    )


def keys_at_hand(key_file: Path | None, environment: Mapping[str, str], relay: str) -> Iterator[Key]:
    """`--key-file`, `RELAY_KEY`, `RELAY_MASTER_KEY`, `MTK_MASTER`, the login at this relay, the operator key of a
    relay on this machine. Raises `Mistake` at one that is there and cannot be used.
    """
    if key_file is not None:
        path = placed(key_file)
        yield checked(_read(path), f"the file {path}")
    for name in VARIABLES:
        if environment.get(name):
            yield checked(environment[name], name)
    yield from own_keys(environment, relay)


def own_keys(environment: Mapping[str, str], relay: str) -> Iterator[Key]:
    """The last two places of `keys_at_hand`: what this user holds whatever a shell was told. Raises `Mistake`."""
    login = read_login(environment)
    if login is not None and login.relay == relay:
        yield checked(login.key, f"the login in {login_path(environment)}")
    path = _operator_key(environment)
    try:
        text = _read(path)
    except Mistake as mistake:
        if not isinstance(mistake.__cause__, FileNotFoundError | NotADirectoryError):
            raise
    else:
        yield checked(text, f"the file {path}")


def _operator_key(environment: Mapping[str, str]) -> Path:
    from relay.settings import KEY_FILE_NAME, SettingsError, data_directory  # here: an agent with a key needs them not

    try:
        return data_directory(environment) / KEY_FILE_NAME
    except SettingsError as error:
        raise Mistake(str(error)) from None


def _read(path: Path) -> str:
    try:
        return read_secret(path)
    except OSError as error:
        raise Mistake(
            f"The key file {path} cannot be read ({error.strerror}): give a key with --key-file, RELAY_KEY or "
            "RELAY_MASTER_KEY."
        ) from error
    except UnicodeError:
        raise Mistake(f"The key file {path} holds no key: a key is one line that begins with mtk_.") from None


def checked(text: str, origin: str) -> Key:
    """The key that a place holds. Raises `Mistake`, which shows nothing of what it holds."""
    try:
        return Key(text.strip(), origin, check_text(text.strip()))
    except BadKey as error:
        raise Mistake(f"What {origin} holds was not sent. {error}") from None


def refuse_whole_keys(words: Sequence[str]) -> None:
    """Everybody on a machine can read the arguments of its processes. Raises `Mistake` for a key among them."""
    if [word for word in words if not word.startswith("-")][:2] == ["keys", "revoke"]:
        return  # the published tutorial gives one there, and it is void a moment later
    if any(_SECRET.search(word) for word in words):
        raise Mistake(
            "A key does not belong into a command line, where others on this machine can read it, so nothing was done. "
            "To name a key give its id, such as mtk_master_ and the twelve characters behind it; to use one give "
            "--key-file, RELAY_KEY or RELAY_MASTER_KEY."
        )


# ---------------------------------------------------------------------------------------------------- the relay


def find_relay(flag: str | None, environment: Mapping[str, str], insecure: bool) -> str:
    """Scheme, host and port: `--relay`, then `RELAY_URL`, then the login's address, then `ws://127.0.0.1:8081`.

    Raises `Mistake` for what is no address, and where a key would cross a network in the clear without `insecure`.
    """
    if flag or environment.get("RELAY_URL"):
        origin = "--relay" if flag else "RELAY_URL"
        return address_of(flag or environment["RELAY_URL"], origin, insecure)
    login = read_login(environment)
    return DEFAULT_RELAY if login is None else address_of(login.relay, "The login", insecure)


def _shown(text: str) -> str:
    """An address that is none of a relay, without a user's name and password, and without a query."""
    return re.sub(r"[?#].*", "?…", re.sub(r"//.*@", "//…@", harmless(text)))


def address_of(text: str, origin: str, insecure: bool) -> str:
    """A relay's address that stands in `origin`, as scheme, host and port. Raises `Mistake` as `find_relay` does."""
    written = _WRITTEN.get(origin.rpartition(" ")[2], "--relay ")
    example = f"for example {written}wss://tunnels.example.com"
    try:
        url = urlsplit(text.strip())
        scheme, host, port = _SCHEMES.get(url.scheme), url.hostname, url.port
    except ValueError:
        scheme = host = port = None
    if scheme is None or host is None or not re.fullmatch(r"[0-9a-z._:-]+", host):
        raise Mistake(f"{origin} must be the relay's address, {example}, but it is {_shown(text)!r}.")
    if url.path not in {"", "/"} or url.query or url.fragment or "@" in url.netloc:
        raise Mistake(f"{origin} must be scheme, host and port alone, {example}, but it is {_shown(text)!r}.")
    place = f"[{host}]" if ":" in host else host
    if scheme == "ws" and not insecure and not is_loopback(host):
        raise Mistake(
            f"{scheme}://{place} would carry the key over the network in the clear, so it was not sent: "
            f"use wss://{place}, or --insecure if you trust every network between here and there."
        )
    return f"{scheme}://{place}" + (f":{port}" if port and port != _PORTS[scheme] else "")


def audience_of(relay: str) -> str:
    """The host that requests are signed for: that of the address, as it is dialled."""
    host = urlsplit(relay).hostname or ""
    try:
        return str(ip_address(host))
    except ValueError:
        return host
