"""What waits to be sent on to a collector."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "outbound",
        sql.Column(
            "id",
            sql.BigInteger().with_variant(sql.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sql.Column("claimed_ms", sql.BigInteger(), nullable=False),
        sql.Column("document", sql.LargeBinary(), nullable=False),
        sql.PrimaryKeyConstraint("id"),
    )
