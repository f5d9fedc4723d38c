"""Alembic's entry: runs the migrations on the connection that `ops.migrating` hands over."""

from __future__ import annotations

from alembic import context

from schemas.tables import SQLModel

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=SQLModel.metadata, render_as_batch=True, compare_type=True)
context.run_migrations()
