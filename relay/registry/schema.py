"""The schema, as the newest migration leaves it. How an older one becomes this is the business of `migrations/`.

Times are seconds since the epoch (UTC). `ledger` has one row: whoever writes locks it first, so writers are one after
another on every database, and the chain of the audit cannot fork.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    insert,
    text,
)

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

LEDGER = Table(
    "ledger",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("audit_seq", BigInteger, nullable=False),
    Column("audit_hash", Text, nullable=False),
    Column("revocation_seq", BigInteger, nullable=False),
    Column("keys_seq", BigInteger, nullable=False),
    Column("names_seq", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("id = 1", name="one_row"),
)

PROJECTS = Table(
    "projects",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("plan", Text),
    Column("created_at", Double, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("deleted_at", Double),
)
_LIVE = PROJECTS.c.deleted_at.is_(None)
_LIVE_NAMES = Index("uq_projects_name_live", PROJECTS.c.name, unique=True, sqlite_where=_LIVE)
Index("ix_projects_created_at_id", PROJECTS.c.created_at, PROJECTS.c.id)

KEYS = Table(
    "keys",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("project_id", Text, ForeignKey("projects.id")),
    Column("parent_id", Text, ForeignKey("keys.id"), index=True),
    Column("public_key", LargeBinary),
    Column("scope", JSON, nullable=False),
    Column("label", Text, nullable=False),
    Column("tunnel", Text),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("revoked_by", Text),
    Column("revoked_seq", BigInteger, index=True),
    Column("token_version", Integer, nullable=False, server_default="0"),
    Column("successor_id", Text, ForeignKey("keys.id"), index=True),
    Column("last_used_at", Double),
    Column("last_used_from", Text),
    Column("line", Text),
    Column("signer", Text),
    CheckConstraint("kind IN ('operator', 'master', 'child', 'visitor')", name="kind"),
    CheckConstraint("(kind IN ('operator', 'master')) = (public_key IS NOT NULL)", name="public_key"),
    CheckConstraint("(kind = 'operator') = (project_id IS NULL)", name="project"),
    CheckConstraint("(kind = 'visitor') = (tunnel IS NOT NULL)", name="tunnel"),
    CheckConstraint("(revoked_at IS NULL) = (revoked_seq IS NULL)", name="revoked"),
    Index("ix_keys_created_at_id", "created_at", "id"),
    Index("ix_keys_project_id_created_at", "project_id", "created_at"),
)

SUBDOMAINS = Table(
    "subdomains",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False, index=True),
    Column("login", Text, nullable=False),
    Column("reserved_at", Double, nullable=False),
    Column("released_at", Double),
)

AUDIT = Table(
    "audit",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("lineage", Text, nullable=False),  # JSON, kept as text to the letter
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("project", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("details", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

SIGNERS = Table(
    "signers",
    METADATA,
    Column("kid", Text, primary_key=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("node", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("retired_at", Double),
)

USAGE = Table(
    "usage",
    METADATA,
    Column("project_id", Text, primary_key=True),
    Column("key_id", Text, primary_key=True),
    Column("period", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("bytes_in", BigInteger, nullable=False),
    Column("bytes_out", BigInteger, nullable=False),
    Index("ix_usage_period_project_id", "period", "project_id"),
)

# Rows of the audit are added, never changed. REPLACE fires no delete trigger of SQLite's, hence the third one.
SQLITE_RULES = (
    "CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END",
    "CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END",
    "CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq) "
    "BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END",
)
POSTGRESQL_RULES = (
    "CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS\n"
    "$$ BEGIN RAISE EXCEPTION 'audit is append-only'; END $$",
    "CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON audit "
    "FOR EACH ROW EXECUTE FUNCTION audit_is_append_only()",
    "CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit "
    "FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()",
)


def tables(dialect: str) -> MetaData:
    """Them, as this database is to have them."""
    if dialect == "postgresql":  # said only now: SQLAlchemy loads all of a dialect that is spoken of
        _LIVE_NAMES.dialect_options[dialect]["where"] = _LIVE
    return METADATA


def create(connection: Connection) -> None:
    """Gives it to an empty database, in the transaction that is under way, with the one row of the ledger."""
    dialect = connection.dialect.name
    tables(dialect).create_all(connection, checkfirst=False)
    for rule in SQLITE_RULES if dialect == "sqlite" else POSTGRESQL_RULES:
        connection.execute(text(rule))
    zeros = dict.fromkeys(("audit_seq", "revocation_seq", "keys_seq", "names_seq"), 0)
    connection.execute(insert(LEDGER), {"id": 1, "audit_hash": "0" * 64, **zeros})
