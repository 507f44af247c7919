"""Makes the password of the compose file's PostgreSQL once: /secrets/postgres-password, /secrets/database-url.

A run that finds both leaves them alone. Whoever starts the database without the relay's using it is told so here,
before two databases are filled.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

PLACE = Path("/secrets")
PASSWORD, URL = PLACE / "postgres-password", PLACE / "database-url"
VARIABLE = "RELAY_DATABASE_URL_FILE"


def main() -> int:
    """0 once both files are there."""
    if os.environ.get(VARIABLE) != str(URL):
        sys.stderr.write(
            f"The profile postgres needs {VARIABLE}={URL} in .env, beside COMPOSE_PROFILES=postgres: "
            "else the relay would go on with its SQLite database.\n"
        )
        return 1
    os.umask(0o077)
    if not PASSWORD.exists():
        write(PASSWORD, secrets.token_hex(24))
    if not URL.exists():
        write(URL, f"postgresql://relay:{PASSWORD.read_text(encoding='ascii')}@postgres/relay")
    return 0


def write(path: Path, text: str) -> None:
    """All or nothing, for its owner alone."""
    aside = path.with_suffix(".new")
    aside.write_text(text, encoding="ascii")
    aside.rename(path)


if __name__ == "__main__":
    sys.exit(main())
