"""What limits need: names have their own sequence, keys know their line and their signer, a month is found fast."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from relay.registry.errors import SchemaError

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UNDERSTOOD_BEFORE = {"names", "tunnels", "rate", "bandwidth"}


def upgrade() -> None:
    """Only adds columns that may be left out, so a process of the older schema that still runs goes on working."""
    op.add_column("ledger", sa.Column("names_seq", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("keys", sa.Column("line", sa.Text))
    op.add_column("keys", sa.Column("signer", sa.Text))
    _fill_lines()
    op.create_index("ix_usage_period_project_id", "usage", ["period", "project_id"])


def _fill_lines() -> None:
    """Keys that replaced another one belong to the line of the first."""
    connection = op.get_bind()
    rows = connection.execute(sa.text("SELECT id, successor_id FROM keys WHERE successor_id IS NOT NULL"))
    before = {row.successor_id: row.id for row in rows}
    for key_id in before:
        first = before[key_id]
        while first in before:
            first = before[first]
        connection.execute(sa.text("UPDATE keys SET line = :first WHERE id = :id"), {"first": first, "id": key_id})


def downgrade() -> None:
    """Raises SchemaError when a key has a limit that an older relay would not understand."""
    for (scope,) in op.get_bind().execute(sa.select(sa.column("scope", sa.JSON)).select_from(sa.table("keys"))):
        if not scope.keys() <= UNDERSTOOD_BEFORE:
            raise SchemaError(
                "Some keys have limits that the older schema does not know; restore a backup from before, or stay."
            )
    op.drop_index("ix_usage_period_project_id", "usage")
    op.drop_column("keys", "signer")
    op.drop_column("keys", "line")
    op.drop_column("ledger", "names_seq")
