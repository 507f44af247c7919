"""How Alembic reaches the database: by a connection that `relay.registry.migrate` made, in its transaction.

A step is a file `versions/NNNN_words.py` whose revision is NNNN, written by hand; once released it is not changed. The
tests compare what the steps make with `relay/registry/schema.py`. A step that alters the table `audit` on SQLite makes
its triggers anew: they are gone with the old table.
"""

from __future__ import annotations

from alembic import context

from relay.registry.schema import tables

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=tables(connection.dialect.name),
    # SQLite alters a table by making a new one.
    render_as_batch=connection.dialect.name == "sqlite",
    transactional_ddl=True,
)
# No transaction of its own: all steps, and the lock that keeps other relays out, are one transaction of the caller's.
context.run_migrations()
