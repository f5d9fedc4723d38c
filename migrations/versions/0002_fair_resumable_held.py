"""Turns and walks of targets, attempts, suspects, feeds, refused connections, beats."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from schemas.tables import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    _targets()
    _listings()
    _budget_and_grant()
    _attempt()
    _suspect()
    _feed()
    _outages()


def _targets() -> None:
    with op.batch_alter_table("target") as table:
        table.add_column(sa.Column("asked_at", UtcDateTime(), nullable=True))
        table.add_column(_number("turn"))
        table.add_column(sa.Column("walk", sa.Text(), nullable=True))
        table.add_column(sa.Column("walk_at", UtcDateTime(), nullable=True))
        table.drop_index("ix_target_due")
    # What is due already keeps its order.
    op.execute("UPDATE target SET turn = wanted")
    due = sa.text("wanted > answered")
    op.create_index("ix_target_due", "target", ["priority", "turn"], sqlite_where=due, postgresql_where=due)
    late = sa.text("wanted > answered AND turn = 0")
    op.create_index("ix_target_put_off", "target", ["not_before"], sqlite_where=late, postgresql_where=late)


def _listings() -> None:
    with op.batch_alter_table("listing") as table:
        table.add_column(_number("own_began"))
    op.execute("UPDATE listing SET own_began = began WHERE written_by = 'item'")


def _budget_and_grant() -> None:
    with op.batch_alter_table("budget") as table:
        table.add_column(sa.Column("resync_tokens", sa.Float(), server_default=sa.text("0"), nullable=False))
        table.add_column(_number("turn"))
        table.add_column(_number("resync_turn"))
    op.execute(
        "INSERT INTO budget (host, tokens, refilled_at) SELECT host, 0, '2000-01-01 00:00:00.000000' "
        "FROM target WHERE host NOT IN (SELECT host FROM budget) GROUP BY host"
    )
    op.execute("UPDATE budget SET turn = COALESCE((SELECT max(wanted) FROM target), 0)")
    op.execute("UPDATE budget SET resync_turn = turn")
    with op.batch_alter_table("grant") as table:
        table.add_column(sa.Column("refused_at", UtcDateTime(), nullable=True))


def _attempt() -> None:
    op.create_table(
        "attempt",
        sa.Column("connection_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("started", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        _number("ended"),
        _number("asked"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("delivery_id", sa.Text(), nullable=True),
        _number("attempt"),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=True),
        _number("pages"),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("connection_id", "url", "started"),
    )
    op.create_index("ix_attempt_path", "attempt", ["connection_id", "path", "started"])
    op.create_index("ix_attempt_at", "attempt", ["at"])
    op.create_index("ix_event_created", "event", ["created_at", "event_id"])


def _suspect() -> None:
    op.create_table(
        "suspect",
        sa.Column("connection_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("listing_id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        _number("walk"),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("connection_id", "listing_id"),
    )
    op.create_index("ix_suspect_state", "suspect", ["connection_id", "state"])


def _feed() -> None:
    op.create_table(
        "feed",
        sa.Column("connection_id", sa.BigInteger(), autoincrement=False, nullable=False),
        _number("turn"),
        _number("resync_turn"),
        sa.Column("heard_at", UtcDateTime(), nullable=True),
        _number("bursts"),
        sa.Column("usual_quiet", sa.Float(), nullable=True),
        sa.Column("silent_since", UtcDateTime(), nullable=True),
        sa.Column("first_read", sa.Boolean(), nullable=False),
        sa.Column("missed_at", UtcDateTime(), nullable=True),
        sa.Column("resync_at", UtcDateTime(), nullable=True),
        sa.Column("reading_until", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("connection_id"),
    )
    op.execute(
        "INSERT INTO feed (connection_id, first_read, resync_at) "
        "SELECT DISTINCT target.connection_id, true, connection.resync_at "
        "FROM target LEFT JOIN connection ON connection.connection_id = target.connection_id"
    )
    with op.batch_alter_table("connection") as table:
        table.drop_column("resync_at")


def _outages() -> None:
    op.create_table(
        "refused",
        sa.Column("connection_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.Column("lease_until", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("connection_id"),
    )
    op.create_table(
        "beat",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False)


def downgrade() -> None:
    """Take back. What is held, walked half and told of attempts is lost; the truth is not."""
    with op.batch_alter_table("connection") as table:
        table.add_column(sa.Column("resync_at", UtcDateTime(), nullable=True))
    op.execute(
        "UPDATE connection SET resync_at = "
        "(SELECT feed.resync_at FROM feed WHERE feed.connection_id = connection.connection_id)"
    )
    op.drop_index("ix_event_created", "event")
    for name in ("feed", "suspect", "attempt", "refused", "beat"):
        op.drop_table(name)
    with op.batch_alter_table("listing") as table:
        table.drop_column("own_began")
    with op.batch_alter_table("grant") as table:
        table.drop_column("refused_at")
    with op.batch_alter_table("budget") as table:
        for name in ("resync_tokens", "turn", "resync_turn"):
            table.drop_column(name)
    op.drop_index("ix_target_put_off", "target")
    op.drop_index("ix_target_due", "target")
    with op.batch_alter_table("target") as table:
        for name in ("asked_at", "turn", "walk", "walk_at"):
            table.drop_column(name)
    due = sa.text("wanted > answered")
    op.create_index("ix_target_due", "target", ["priority", "wanted"], sqlite_where=due, postgresql_where=due)
