"""Files that hold keys: read with a warning where others can read them too, written 0600 and all or nothing.

Knows nothing of what a key looks like.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from relay.cli.errors import Mistake
from relay.cli.output import harmless, warn

# No key is longer; whatever a file holds beyond this is not read.
MOST = 16 * 1024


# ---------------------------------------------------------------------------------------------------- reading


def read_secret(path: Path) -> str:
    """The first 16 KiB of a file, without the space around them. Raises `OSError`, `UnicodeError`."""
    with path.open("rb") as file:
        if others_can_read(path, file.fileno()):
            warn(f"The key file {path} can be read by others on this machine; close it with: chmod 600 {path}")
        return file.read(MOST).decode("ascii").strip()


def text_of(file: BinaryIO, most: int, named: str) -> str:
    """What an open file holds, text of at most so many bytes. Raises `OSError`, and `Mistake`, which begins with
    `named`.
    """
    data = file.read(most + 1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeError:
        raise Mistake(f"{named} is not text in UTF-8: write it anew.") from None
    if len(data) > most:
        raise Mistake(f"{named} is longer than {most // 1024} KiB: is it the right file?")
    return text


def placed(path: Path) -> Path:
    """With a home directory in the place of ~. Raises `Mistake` where there is none."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise Mistake(f"{harmless(path)} is in a home directory that does not exist: write the whole path.") from None


def is_special(path: Path) -> bool:
    """Whether it is a pipe, a device or a socket, which may never come to an end, or to a beginning."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # whoever reads it says why that cannot be done
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def others_can_read(path: Path, descriptor: int) -> bool:
    """Whether an open file can be read by others on this machine too, as far as its mode tells. That of a credential of
    systemd tells nothing: its group stands for the list of who else may, who is the service's own user.
    """
    if os.name != "posix" or not stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
        return False
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    return credentials is None or not path.is_relative_to(credentials)


# ---------------------------------------------------------------------------------------------------- writing


class SecretFile:
    """A file that will hold a secret once `keep` was called, and not exist, or hold what it held, if it never is.

    As a context: `with SecretFile(path) as file: file.write(text); …; file.keep()`. With `replace` an older file is
    replaced by `keep`; without, it is a `Mistake` that there is one. Every `OSError` becomes a `Mistake` too.
    """

    def __init__(self, path: Path, *, replace: bool = False) -> None:
        self.path = placed(path)
        self._replace = replace
        self._aside = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}") if replace else self.path
        self._handle = -1
        self._kept = False

    def __enter__(self) -> Self:
        try:
            self._handle = os.open(self._aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise Mistake(f"The file {self._aside} exists, and a key in it may be in use: name another file.") from None
        except OSError as error:
            raise self._failed(error) from None
        return self

    def write(self, text: str) -> None:
        """Writes the text and a line end, through to the disk."""
        self.write_lines([text])

    def write_lines(self, lines: Iterable[str]) -> int:
        """Writes each with a line end, and at last through to the disk; how many there were."""
        count = 0
        try:
            with os.fdopen(self._handle, "wb", closefd=False) as file:
                for line in lines:
                    file.write(line.encode() + b"\n")
                    count += 1
            os.fsync(self._handle)
        except OSError as error:
            raise self._failed(error) from None
        return count

    def keep(self) -> None:
        """Puts the file in its place."""
        try:
            if self._replace:
                os.replace(self._aside, self.path)
        except OSError as error:
            raise self._failed(error) from None
        self._kept = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)
        if not self._kept:
            self._aside.unlink(missing_ok=True)

    def _failed(self, error: OSError) -> Mistake:
        return Mistake(f"The file {self.path} cannot be written ({error.strerror}): name another one.")


# ---------------------------------------------------------------------------------------------------- the login


@dataclass(frozen=True, slots=True)
class Login:
    """A relay's address, as `ws://` or `wss://`, and the key for it."""

    relay: str
    key: str = field(repr=False)


def login_path(environment: Mapping[str, str]) -> Path:
    """Where the login is. Raises `Mistake` where the user has no home directory."""
    base = environment.get("XDG_CONFIG_HOME", "")
    try:
        # The XDG specification: a relative path in such a variable is to be ignored.
        return (Path(base) if Path(base).is_absolute() else Path.home() / ".config") / "relay" / "login.json"
    except RuntimeError:
        raise Mistake(
            "This user has no home directory for the login. Say where it is, for example XDG_CONFIG_HOME=/etc/relay"
        ) from None


def read_login(environment: Mapping[str, str]) -> Login | None:
    """None where there is none. Raises `Mistake` for one that cannot be used."""
    try:
        path = login_path(environment)
    except Mistake:
        return None
    try:
        held = json.loads(read_secret(path))
        return Login(str(held["relay"]), str(held["key"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Mistake(
            f"The login in {path} cannot be read ({error.strerror}): log in again with relay login --relay URL."
        ) from None
    except (ValueError, TypeError, KeyError):
        raise Mistake(f"What {path} holds is not a login: log in again with relay login --relay URL.") from None


def write_login(login: Login, environment: Mapping[str, str]) -> Path:
    """Replaces the login, 0600. Raises `Mistake`."""
    path = login_path(environment)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Mistake(f"The directory {path.parent} cannot be made ({error.strerror}).") from None
    with SecretFile(path, replace=True) as file:
        file.write(json.dumps({"relay": login.relay, "key": login.key}))
        file.keep()
    return path


def remove_login(environment: Mapping[str, str]) -> bool:
    """Whether there was one. Raises `Mistake`."""
    path = login_path(environment)
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise Mistake(f"The login in {path} cannot be removed ({error.strerror}).") from None
    return True
