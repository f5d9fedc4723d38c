"""An event keeps the version of the schema by which its data was written: so far there was one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("event", sa.Column("schema_version", sa.Integer(), server_default=sa.text("1"), nullable=False))


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("event") as table:
        table.drop_column("schema_version")
