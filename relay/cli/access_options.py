"""The options of `relay http` that say who may come in, and what the local service is given: files into plain values.

A mistake names the file and the line, never what stands there. Passwords are hashed here; nothing else leaves.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from relay.agent.requests import why_not_upstream
from relay.cli.errors import Mistake
from relay.cli.output import harmless, warn
from relay.cli.secretfiles import others_can_read, placed, text_of
from relay.exchange.heads import Fields
from relay.keys.forms import MAX_LENGTH
from relay.wire.access import MAX_PASSWORD, MAX_USERS, AccessRules, why_not_hash, why_not_user
from relay.wire.frames import MAX_HELLO
from relay.wire.hello import Hello, encode_hello
from relay.wire.limits import TunnelLimits

MOST = 64 * 1024
MOST_FIELDS = 32
# What the relay can afford: the least that OWASP asks of argon2id. A guess goes through the relay, which slows it down.
HASH_MEMORY, HASH_PASSES, HASH_LANES = 19_456, 2, 1
_HASHES = re.compile(r"\$(?:argon2|2[abxy]?\$|apr1\$|[1567]\$|y\$|scrypt|pbkdf2)|\{[A-Z0-9-]{3,12}\}")


@dataclass(frozen=True, slots=True)
class Access:
    """What the options came to: the rules for visitors of every tunnel, and the fields for every local service."""

    rules: AccessRules | None = None
    upstream: Fields = field(default_factory=list, repr=False)

    def for_each(
        self, names: Sequence[str], limits: Mapping[str, TunnelLimits] | None = None
    ) -> dict[str, AccessRules]:
        """The rules by subdomain. Raises `Mistake` as `check_size` does."""
        if self.rules is None:
            return {}
        access = dict.fromkeys(names, self.rules)
        check_size(names, access, limits or {})
        return access


def check_size(names: Sequence[str], access: Mapping[str, AccessRules], limits: Mapping[str, TunnelLimits]) -> None:
    """Raises `Mistake` where rules and limits are more than fits in the first words to a relay."""
    longest = Hello("i" * 64, 0, 2**53, "k" * MAX_LENGTH, tuple(names), agent="a" * 128)
    if len(encode_hello(replace(longest, access=access, limits=limits))) > MAX_HELLO:
        raise Mistake(
            f"So many users for {len(names)} tunnels are too much for one agent: give fewer users or tunnels, "
            "or start an agent for each."
        )


def read_access(private: bool, basic_auth_file: Path | None, upstream_header_file: Path | None) -> Access:
    """Raises `Mistake`. Blocks while passwords are hashed, a few hundredths of a second each."""
    users = () if basic_auth_file is None else tuple(read_users(placed(basic_auth_file)))
    upstream = [] if upstream_header_file is None else read_fields(placed(upstream_header_file))
    rules = AccessRules(private, users) if private or users else None
    if upstream and rules is None:
        warn(
            "The tunnel is open to everybody, and what the local service is given by --upstream-header-file lets them "
            "in there: ask visitors for something with --private or --basic-auth-file."
        )
    return Access(rules, upstream)


def read_users(path: Path, option: str = "") -> Iterator[tuple[str, str]]:
    """Each user of a file with the hash of the password. Raises `Mistake`, which begins with `option`."""
    option = option or f"--basic-auth-file {path}"
    seen: set[str] = set()
    for number, line in _lines(path, option):
        where = f"{option}, line {number}"
        user, colon, password = line.partition(":")
        user = unicodedata.normalize("NFC", user)
        if not colon:
            raise Mistake(f"{where}: write user:password, or user:$argon2id$… with the hash of the password.")
        if wrong := why_not_user(user):
            raise Mistake(f"{where}: {wrong}.")
        if user in seen:
            raise Mistake(f"{where}: the user {harmless(user)} stands twice; every user has one password.")
        if len(seen) >= MAX_USERS:
            raise Mistake(f"{where}: a tunnel has at most {MAX_USERS} users.")
        seen.add(user)
        yield user, _hash_of(password, where)
    if not seen:
        raise Mistake(f"{option} names no user: write a line such as ann:her-password.")


def _hash_of(password: str, where: str) -> str:
    """The password's hash, which it may be already. Raises `Mistake`."""
    if _HASHES.match(password):
        if wrong := why_not_hash(password):
            raise Mistake(f"{where}: {wrong}; write that, or the password itself.")
        return password
    password = unicodedata.normalize("NFC", password)  # as the relay reads what a visitor sends: RFC 7617 §2.1
    if not 1 <= len(password) <= MAX_PASSWORD or re.search(r"[\x00-\x1f\x7f]", password):
        raise Mistake(f"{where}: a password has 1 to {MAX_PASSWORD} characters, none of them a control character.")
    from argon2 import PasswordHasher

    return PasswordHasher(HASH_PASSES, HASH_MEMORY, HASH_LANES).hash(password)


def read_fields(path: Path, option: str = "") -> Fields:
    """The fields of a file. Raises `Mistake`, which begins with `option`."""
    option = option or f"--upstream-header-file {path}"
    fields: Fields = []
    for number, line in _lines(path, option):
        where = f"{option}, line {number}"
        name, colon, value = line.partition(":")
        if not colon:
            raise Mistake(f"{where}: write Name: value, for example Authorization: Bearer and a token.")
        try:
            pair = name.encode("ascii"), value.strip(" \t").encode("latin-1")
        except UnicodeError:
            raise Mistake(f"{where}: a header field has no such characters.") from None
        if wrong := why_not_upstream(*pair):
            raise Mistake(f"{where}: {wrong}.")
        fields.append(pair)
    if not 1 <= len(fields) <= MOST_FIELDS:
        raise Mistake(f"{option} must have 1 to {MOST_FIELDS} lines such as Authorization: Bearer and a token.")
    return fields


def _lines(path: Path, option: str) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, without empty ones and comments. Raises `Mistake`."""
    try:
        with path.open("rb") as file:
            if others_can_read(path, file.fileno()):
                warn(f"The file {path} can be read by others on this machine; close it with: chmod 600 {path}")
            text = text_of(file, MOST, option)
    except OSError as error:
        raise Mistake(f"{option} cannot be read ({error.strerror}): give the name of a file.") from None
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line
