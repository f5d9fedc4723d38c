"""What is still to be erased of the connections of erased users."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from schemas.tables import UtcDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "erasure",
        sa.Column("connection_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("connection_id"),
    )


def downgrade() -> None:
    """Take back. What was not erased by then stays, with nobody's connections."""
    op.drop_table("erasure")
