"""An attempt to connect knows whether its code has reached the token worker's queue; those of before are not asked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from schemas.tables import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("connect_attempt", sa.Column("handed_on_at", UtcDateTime(), nullable=True))
    op.execute(sa.text("UPDATE connect_attempt SET handed_on_at = used_at"))


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("connect_attempt") as table:
        table.drop_column("handed_on_at")
