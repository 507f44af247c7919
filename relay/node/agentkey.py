"""The agent key: given, or made at first start and kept in the data directory, readable by its owner only."""

from __future__ import annotations

import os
import secrets

from relay.node.errors import StartError
from relay.settings import ServeSettings


def agent_key(settings: ServeSettings) -> str:
    """The key that agents must show. Raises `StartError`."""
    if settings.agent_key:
        return settings.agent_key
    path = settings.key_file
    try:
        if settings.agent_key_file is None:
            settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                pass
            else:
                with os.fdopen(handle, "w") as file:
                    file.write(secrets.token_urlsafe(32) + "\n")
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise StartError(
            f"The agent key in {path} cannot be used: {reason}. Choose another place with --data."
        ) from None
    if not key:
        raise StartError(f"The agent key file {path} is empty. Remove it, and the relay makes a new key.")
    return key
