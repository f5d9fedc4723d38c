"""A family of tokens knows its last but one rotation; those of before do not, and learn it by being rotated twice."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from schemas.tables import UtcDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("family", sa.Column("previously_rotated_at", UtcDateTime(), nullable=True))


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("family") as table:
        table.drop_column("previously_rotated_at")
