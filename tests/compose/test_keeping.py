"""Backup while serving, restore into a fresh stack, upgrade of the image: keys and names are kept each time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.engine import IMAGE, Stack, docker
from tests.compose.outside import Outside
from tests.support.local import LocalProcess

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]
NEWER = f"{IMAGE}-newer"
# As docs/operating.md does it, with the password: not every image lets root in by the socket.
WITH_PASSWORD = "PGHOST=127.0.0.1 PGPASSWORD=$(cat /secrets/postgres-password)"
DUMP = ("exec", "-T", "postgres", "sh", "-c", f"{WITH_PASSWORD} pg_dump -U relay --format=custom relay")
RESTORE = (*DUMP[:5], f"{WITH_PASSWORD} pg_restore -U relay --clean --if-exists --dbname relay")
KEPT = ("backup.db", "operator.key", "signing.key")


@pytest.fixture
def newer() -> Iterator[str]:
    """Another image of the same relay, as the next version would be."""
    docker("build", "-q", "-t", NEWER, "-", given=f"FROM {IMAGE}\nLABEL version=newer\n".encode())
    yield NEWER
    docker("rmi", NEWER)


def outside_of(stack: Stack, folder: Path) -> Outside:
    return Outside(stack, stack.authority(folder), folder)


async def served(outside: Outside, key: Path) -> None:
    """An agent with that key opens its name, and visitors reach it."""
    async with LocalProcess() as local, outside.agent(local.port, "kept", key):
        await outside.recovered("kept")


async def test_a_backup_in_a_fresh_stack_knows_keys_and_names(tmp_path: Path) -> None:
    """By the commands of docs/operating.md: a tar of the copy and the two keys, from one volume into another."""
    with Stack() as first:
        first.up()
        project = first.json("projects", "create", "mine")["project"]["id"]
        before = outside_of(first, tmp_path)
        key = before.key("--subdomain", "kept", "--project", "mine")[1]
        async with LocalProcess() as local, before.agent(local.port, "kept", key):
            await before.recovered("kept")
            first.relay("db", "backup", "/data/backup.db")
            saved = first.bytes("exec", "-T", "relay", "tar", "-C", "/data", "-c", *KEPT)
            first("exec", "-T", "relay", "rm", "/data/backup.db")
    with Stack() as second:
        restore = "tar -x && mv backup.db relay.db"
        second("run", "--rm", "--no-deps", "-T", "--entrypoint", "sh", "relay", "-c", restore, given=saved)
        second.up()
        assert project in {one["id"] for one in second.json("projects", "list")}
        owners = {one["name"]: one["project"] for one in second.json("subdomains", "list")}
        assert owners["kept"] in {project, "mine"}
        await served(outside_of(second, tmp_path), key)


async def test_another_image_keeps_keys_and_names(tmp_path: Path, newer: str) -> None:
    """`docker compose up -d` with a newer image: the agent comes back by itself, and nothing has to be minted anew."""
    with Stack() as stack:
        stack.up()
        outside = outside_of(stack, tmp_path)
        key = outside.key("--subdomain", "kept")[1]
        operator = stack.json("keys", "list", "--kind", "operator")[0]["id"]
        async with LocalProcess() as local, outside.agent(local.port, "kept", key):
            await outside.recovered("kept")
            older = stack.container("relay")["Image"]
            stack.env["RELAY_IMAGE"] = newer
            await asyncio.to_thread(stack.up)
            assert stack.container("relay")["Image"] != older
            await outside.recovered("kept")
        assert [one["id"] for one in stack.json("keys", "list", "--kind", "operator")] == [operator]


async def test_postgres_by_its_own_backup(tmp_path: Path) -> None:
    """pg_dump while the relay serves, pg_restore into a fresh database, the same keys and names."""
    extra = {"RELAY_DATABASE_URL_FILE": "/secrets/database-url"}
    with Stack(profiles=["postgres"], extra=extra) as first:
        first.up()
        key = outside_of(first, tmp_path).key("--subdomain", "kept")[1]
        await served(outside_of(first, tmp_path), key)
        dump = first.bytes(*DUMP)
        keys = first.bytes("exec", "-T", "relay", "tar", "-C", "/data", "-c", *KEPT[1:])
    with Stack(profiles=["postgres"], extra=extra) as second:
        second.up("postgres")
        second(*RESTORE, given=dump)
        second("run", "--rm", "--no-deps", "-T", "--entrypoint", "tar", "relay", "-x", given=keys)
        second.up()
        await served(outside_of(second, tmp_path), key)


def test_a_profile_without_its_setting_starts_nothing() -> None:
    """The profile postgres alone would leave the relay with its SQLite file: it says what is missing instead."""
    with Stack(profiles=["postgres"]) as stack:
        with pytest.raises(AssertionError, match="database-secret"):
            stack.up()
        assert "RELAY_DATABASE_URL_FILE=/secrets/database-url" in stack("logs", "database-secret")
        assert stack("ps", "-q", "relay") == ""
