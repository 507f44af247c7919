"""Every line of Docker Compose that a page shows: which test here runs it, or why none does."""

from __future__ import annotations

from collections.abc import Mapping

UP = "RELAY_DOMAIN=tunnels.example.com docker compose up -d"
LOOK = (
    "docker compose ps",
    "docker compose exec relay relay projects create mcp-server",
    "docker compose exec relay relay tunnels list",
)
BACKUP = (
    "docker compose exec relay relay db backup /data/backup.db",
    "docker compose exec -T relay tar -C /data -cf - backup.db operator.key signing.key > relay-monday.tar",
    "docker compose exec relay rm /data/backup.db",
)
RESTORE = (
    "docker compose run --rm -T --no-deps --entrypoint tar relay -C /data -xf - < relay-monday.tar",
    "docker compose run --rm -T --no-deps --entrypoint mv relay /data/backup.db /data/relay.db",
)
EMPTY = (
    "docker compose stop relay",
    "docker compose run --rm -T --no-deps --entrypoint rm relay "
    "-f /data/relay.db /data/relay.db-wal /data/relay.db-shm",
)
UPDATE = (
    "docker compose exec relay relay db backup /data/before.db",
    "docker compose exec relay relay db current",
)
BACK = "docker compose run --rm -T --no-deps relay db downgrade 0001"
WILDCARD = (
    "RELAY_DOMAIN=tunnels.example.com docker compose -f docker-compose.yaml -f deploy/caddy/wildcard.yaml up -d --build"
)
DUMP = (
    "docker compose exec -T postgres pg_dump -U relay --format=custom relay > relay-monday.dump",
    "docker compose exec -T postgres pg_restore -U relay --clean --if-exists --dbname relay < relay-monday.dump",
)
ROOT_CERTIFICATE = "docker compose cp caddy:/data/caddy/pki/authorities/local/root.crt caddy-root.crt"

_HERE = "test_shown.py::test_backup_restore_and_back"
SHOWN: Mapping[str, str] = {
    UP: _HERE,
    **dict.fromkeys((*LOOK, *BACKUP, *RESTORE, *EMPTY, *UPDATE, BACK), _HERE),
    ROOT_CERTIFICATE: "test_shown.py::test_the_authority_of_caddy",
    "docker compose logs --follow relay": "it does not end",
    "docker compose up -d --build": "the images are built once for all tests",
    "docker compose --profile demo up -d": "test_demo.py::test_the_demo_answers",
    "docker compose --profile monitoring up -d": "test_monitoring.py::test_every_metric_that_fired_is_there",
    "RELAY_DATABASE_URL_FILE=/secrets/database-url docker compose --profile postgres up -d": (
        "test_keeping.py::test_postgres_by_its_own_backup"
    ),
    WILDCARD: "it needs the DNS of a provider, and a network for the build",
    **dict.fromkeys(DUMP, "by the socket of PostgreSQL's own image; test_keeping.py does the same with its password"),
}
