"""The registry: ledger, projects, keys, subdomains, audit, signers, usage."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from relay.registry.errors import SchemaError

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Rows of the audit are added, never changed. REPLACE fires no delete trigger of SQLite's, hence the third one.
SQLITE_TRIGGERS = {
    "audit_no_update": "BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END",
    "audit_no_delete": "BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END",
    "audit_no_replace": (
        "BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq) "
        "BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END"
    ),
}
POSTGRESQL_FUNCTION = """
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'audit is append-only'; END $$
"""
POSTGRESQL_TRIGGERS = {
    "audit_no_change": "BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_is_append_only()",
    "audit_no_truncate": "BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()",
}


def upgrade() -> None:
    op.create_table(
        "ledger",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("audit_seq", sa.BigInteger, nullable=False),
        sa.Column("audit_hash", sa.Text, nullable=False),
        sa.Column("revocation_seq", sa.BigInteger, nullable=False),
        sa.Column("keys_seq", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger"),
        sa.CheckConstraint("id = 1", name=op.f("ck_ledger_one_row")),
    )
    op.execute(f"INSERT INTO ledger VALUES (1, 0, '{'0' * 64}', 0, 0)")
    op.create_table(
        "projects",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("plan", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("deleted_at", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
    )
    live = sa.text("deleted_at IS NULL")
    op.create_index(
        "uq_projects_name_live", "projects", ["name"], unique=True, sqlite_where=live, postgresql_where=live
    )
    op.create_index("ix_projects_created_at_id", "projects", ["created_at", "id"])
    _keys()
    op.create_table(
        "subdomains",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("login", sa.Text, nullable=False),
        sa.Column("reserved_at", sa.Double, nullable=False),
        sa.Column("released_at", sa.Double),
        sa.PrimaryKeyConstraint("name", name="pk_subdomains"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_subdomains_project_id_projects"),
    )
    op.create_index("ix_subdomains_project_id", "subdomains", ["project_id"])
    _audit()
    op.create_table(
        "signers",
        sa.Column("kid", sa.Text, nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("retired_at", sa.Double),
        sa.PrimaryKeyConstraint("kid", name="pk_signers"),
    )
    op.create_table(
        "usage",
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("bytes_in", sa.BigInteger, nullable=False),
        sa.Column("bytes_out", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("project_id", "key_id", "period", name="pk_usage"),
    )


def _keys() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text),
        sa.Column("parent_id", sa.Text),
        sa.Column("public_key", sa.LargeBinary),
        sa.Column("scope", sa.JSON, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("tunnel", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("revoked_at", sa.Double),
        sa.Column("revoked_by", sa.Text),
        sa.Column("revoked_seq", sa.BigInteger),
        sa.Column("token_version", sa.Integer, nullable=False, server_default="0"),
        sa.Column("successor_id", sa.Text),
        sa.Column("last_used_at", sa.Double),
        sa.Column("last_used_from", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_keys_project_id_projects"),
        sa.ForeignKeyConstraint(["parent_id"], ["keys.id"], name="fk_keys_parent_id_keys"),
        sa.ForeignKeyConstraint(["successor_id"], ["keys.id"], name="fk_keys_successor_id_keys"),
        sa.CheckConstraint("kind IN ('operator', 'master', 'child', 'visitor')", name=op.f("ck_keys_kind")),
        sa.CheckConstraint(
            "(kind IN ('operator', 'master')) = (public_key IS NOT NULL)", name=op.f("ck_keys_public_key")
        ),
        sa.CheckConstraint("(kind = 'operator') = (project_id IS NULL)", name=op.f("ck_keys_project")),
        sa.CheckConstraint("(kind = 'visitor') = (tunnel IS NOT NULL)", name=op.f("ck_keys_tunnel")),
        sa.CheckConstraint("(revoked_at IS NULL) = (revoked_seq IS NULL)", name=op.f("ck_keys_revoked")),
    )
    for columns in (
        ["parent_id"],
        ["revoked_seq"],
        ["successor_id"],
        ["created_at", "id"],
        ["project_id", "created_at"],
    ):
        op.create_index(f"ix_keys_{'_'.join(columns)}", "keys", columns)


def _audit() -> None:
    texts = ("at", "actor", "lineage", "action", "subject", "project", "address", "details", "previous", "hash")
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger, autoincrement=False, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in texts),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
    )
    if op.get_bind().dialect.name == "sqlite":
        triggers = SQLITE_TRIGGERS
    else:
        triggers = POSTGRESQL_TRIGGERS
        op.execute(POSTGRESQL_FUNCTION)
    for name, what in triggers.items():
        op.execute(f"CREATE TRIGGER {name} {what}")


def downgrade() -> None:
    connection = op.get_bind()
    for table in ("audit", "keys", "projects", "subdomains", "signers", "usage"):
        if connection.execute(sa.text(f"SELECT 1 FROM {table} LIMIT 1")).first() is not None:
            raise SchemaError(
                "There is no older schema that could keep what this database holds; "
                "to start anew, use another database."
            )
    for table in ("usage", "signers", "audit", "subdomains", "keys", "projects", "ledger"):
        op.drop_table(table)
    if connection.dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_is_append_only()")
