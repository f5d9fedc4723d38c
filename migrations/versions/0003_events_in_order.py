"""Events are found by their position, for a replay in order."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_index("ix_event_position", "event", ["position"])


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_event_position", "event")
