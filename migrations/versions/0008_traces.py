"""What waits in the store remembers the trace that it is of; what waits from before is of none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLES = ("target", "event", "parked")


def upgrade() -> None:
    """Apply."""
    for name in TABLES:
        op.add_column(name, sa.Column("traceparent", sa.Text(), nullable=True))


def downgrade() -> None:
    """Take back."""
    for name in TABLES:
        with op.batch_alter_table(name) as table:
            table.drop_column("traceparent")
