"""Run by Alembic, never imported: migrates the connection that ``registry/store/schema.py`` holds open.

The transaction is the caller's: on SQLite one ``BEGIN IMMEDIATE`` around all steps, so that a process killed in the
middle leaves the database as it was.
"""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    # SQLite cannot alter most things: later migrations write `with op.batch_alter_table(...)`.
    render_as_batch=True,
)
context.run_migrations()
