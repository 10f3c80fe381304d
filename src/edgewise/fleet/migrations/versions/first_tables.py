"""The first tables, and triggers that keep the audit log append-only."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op

revision = "0001"
down_revision = None

SQLITE = (
    "CREATE TRIGGER audit_keeps_{what} BEFORE {what} ON audit "
    "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
)
POSTGRESQL = (
    "CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {raise_}; END $$".format(
        raise_="RAISE EXCEPTION 'the audit log is append-only'"
    ),
    "CREATE TRIGGER audit_keeps BEFORE UPDATE OR DELETE OR TRUNCATE ON audit EXECUTE FUNCTION audit_is_append_only()",
)


def upgrade() -> None:
    """Create all tables of the first release."""
    op.create_table(
        "alert",
        sql.Column("id", sql.String(length=128), nullable=False),
        sql.Column("product", sql.String(length=128), nullable=False),
        sql.Column("opened_ms", sql.BigInteger(), nullable=False),
        sql.Column("closed_ms", sql.BigInteger(), nullable=True),
        sql.Column("document", sql.LargeBinary(), nullable=False),
        sql.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_alert_product"), "alert", ["product"], unique=False)
    op.create_table(
        "audit",
        sql.Column(
            "sequence", sql.BigInteger().with_variant(sql.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sql.Column("at_ms", sql.BigInteger(), nullable=False),
        sql.Column("actor", sql.String(length=160), nullable=False),
        sql.Column("action", sql.String(length=64), nullable=False),
        sql.Column("subject", sql.Text(), nullable=False),
        sql.Column("product", sql.String(length=128), nullable=True),
        sql.Column("detail", sql.Text(), nullable=False),
        sql.Column("previous_sha256", sql.String(length=64), nullable=False),
        sql.Column("sha256", sql.String(length=64), nullable=False),
        sql.PrimaryKeyConstraint("sequence"),
    )
    op.create_table(
        "cell",
        sql.Column("device_id", sql.String(length=128), nullable=False),
        sql.Column("release", sql.String(length=64), nullable=False),
        sql.Column("start_ms", sql.BigInteger(), nullable=False),
        sql.Column("product", sql.String(length=128), nullable=False),
        sql.Column("device_class", sql.String(length=128), nullable=False),
        sql.Column("reported_ms", sql.BigInteger(), nullable=False),
        sql.Column("alarms", sql.BigInteger(), nullable=False),
        sql.Column("document", sql.LargeBinary(), nullable=False),
        sql.PrimaryKeyConstraint("device_id", "release", "start_ms"),
    )
    op.create_index("cell_by_product", "cell", ["product", "start_ms"], unique=False)
    op.create_table(
        "ddi_action",
        sql.Column("id", sql.BigInteger().with_variant(sql.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sql.Column("device_id", sql.String(length=128), nullable=False),
        sql.Column("rollout_id", sql.String(length=128), nullable=False),
        sql.Column("version", sql.String(length=128), nullable=False),
        sql.Column("state", sql.String(length=16), nullable=False),
        sql.Column("detail", sql.Text(), nullable=False),
        sql.Column("updated_ms", sql.BigInteger(), nullable=False),
        sql.PrimaryKeyConstraint("id"),
        sql.UniqueConstraint("device_id", "rollout_id", "version"),
    )
    op.create_index(op.f("ix_ddi_action_device_id"), "ddi_action", ["device_id"], unique=False)
    op.create_table(
        "device",
        sql.Column("id", sql.String(length=128), nullable=False),
        sql.Column("product", sql.String(length=128), nullable=False),
        sql.Column("device_class", sql.String(length=128), nullable=False),
        sql.Column("labels", sql.Text(), nullable=False),
        sql.Column("public_key", sql.LargeBinary(), nullable=False),
        sql.Column("token_id", sql.String(length=128), nullable=True),
        sql.Column("token_sha256", sql.LargeBinary(), nullable=True),
        sql.Column("release", sql.String(length=128), nullable=True),
        sql.Column("enrolled_ms", sql.BigInteger(), nullable=False),
        sql.Column("seen_ms", sql.BigInteger(), nullable=True),
        sql.Column("revoked_ms", sql.BigInteger(), nullable=True),
        sql.PrimaryKeyConstraint("id"),
        sql.UniqueConstraint("token_id"),
    )
    op.create_index(op.f("ix_device_product"), "device", ["product"], unique=False)
    op.create_table(
        "enrolment",
        sql.Column("id", sql.String(length=128), nullable=False),
        sql.Column("secret_sha256", sql.LargeBinary(), nullable=False),
        sql.Column("product", sql.String(length=128), nullable=False),
        sql.Column("device_class", sql.String(length=128), nullable=False),
        sql.Column("labels", sql.Text(), nullable=False),
        sql.Column("created_ms", sql.BigInteger(), nullable=False),
        sql.Column("expires_ms", sql.BigInteger(), nullable=False),
        sql.Column("used_by", sql.String(length=128), nullable=True),
        sql.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "envelope",
        sql.Column("device_id", sql.String(length=128), nullable=False),
        sql.Column("boot_id", sql.String(length=128), nullable=False),
        sql.Column("sequence", sql.BigInteger(), nullable=False),
        sql.Column("product", sql.String(length=128), nullable=False),
        sql.Column("received_ms", sql.BigInteger(), nullable=False),
        sql.Column("document", sql.LargeBinary(), nullable=True),
        sql.Column("fault", sql.Text(), nullable=True),
        sql.PrimaryKeyConstraint("device_id", "boot_id", "sequence"),
    )
    op.create_index(
        "envelope_to_merge",
        "envelope",
        ["received_ms"],
        unique=False,
        postgresql_where=sql.text("document IS NOT NULL AND fault IS NULL"),
        sqlite_where=sql.text("document IS NOT NULL AND fault IS NULL"),
    )
    op.create_table(
        "nonce",
        sql.Column("device_id", sql.String(length=128), nullable=False),
        sql.Column("nonce", sql.String(length=32), nullable=False),
        sql.Column("expires_ms", sql.BigInteger(), nullable=False),
        sql.PrimaryKeyConstraint("device_id", "nonce"),
    )
    op.create_index(op.f("ix_nonce_expires_ms"), "nonce", ["expires_ms"], unique=False)
    op.create_table(
        "release",
        sql.Column("product", sql.String(length=128), nullable=False),
        sql.Column("version", sql.String(length=128), nullable=False),
        sql.Column("digest", sql.String(length=64), nullable=False),
        sql.Column("sha256", sql.String(length=64), nullable=False),
        sql.Column("size_bytes", sql.BigInteger(), nullable=False),
        sql.Column("object", sql.Text(), nullable=False),
        sql.Column("document", sql.LargeBinary(), nullable=False),
        sql.Column("created_ms", sql.BigInteger(), nullable=False),
        sql.Column("created_by", sql.String(length=128), nullable=False),
        sql.PrimaryKeyConstraint("product", "version"),
    )
    op.create_index(op.f("ix_release_digest"), "release", ["digest"], unique=False)
    op.create_table(
        "rollout",
        sql.Column("id", sql.String(length=128), nullable=False),
        sql.Column("product", sql.String(length=128), nullable=False),
        sql.Column("version", sql.String(length=128), nullable=False),
        sql.Column("state", sql.String(length=16), nullable=False),
        sql.Column("revision", sql.Integer(), nullable=False),
        sql.Column("document", sql.LargeBinary(), nullable=False),
        sql.Column("created_ms", sql.BigInteger(), nullable=False),
        sql.Column("started_ms", sql.BigInteger(), nullable=True),
        sql.Column("updated_ms", sql.BigInteger(), nullable=False),
        sql.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_rollout_product"), "rollout", ["product"], unique=False)
    op.create_index(op.f("ix_rollout_state"), "rollout", ["state"], unique=False)
    op.create_table(
        "rollout_event",
        sql.Column("id", sql.BigInteger().with_variant(sql.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sql.Column("rollout_id", sql.String(length=128), nullable=False),
        sql.Column("at_ms", sql.BigInteger(), nullable=False),
        sql.Column("document", sql.LargeBinary(), nullable=False),
        sql.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_rollout_event_rollout_id"), "rollout_event", ["rollout_id"], unique=False)
    op.create_table(
        "series",
        sql.Column("product", sql.String(length=128), nullable=False),
        sql.Column("start_ms", sql.BigInteger(), nullable=False),
        sql.Column("release", sql.String(length=64), nullable=False),
        sql.Column("variant", sql.String(length=128), nullable=False),
        sql.Column("device_class", sql.String(length=128), nullable=False),
        sql.Column("document", sql.LargeBinary(), nullable=False),
        sql.PrimaryKeyConstraint("product", "start_ms", "release", "variant", "device_class"),
    )
    op.create_table(
        "token",
        sql.Column("id", sql.String(length=128), nullable=False),
        sql.Column("role", sql.String(length=16), nullable=False),
        sql.Column("products", sql.Text(), nullable=False),
        sql.Column("secret_sha256", sql.LargeBinary(), nullable=False),
        sql.Column("note", sql.Text(), nullable=False),
        sql.Column("created_ms", sql.BigInteger(), nullable=False),
        sql.Column("expires_ms", sql.BigInteger(), nullable=True),
        sql.Column("revoked_ms", sql.BigInteger(), nullable=True),
        sql.PrimaryKeyConstraint("id"),
    )
    statements = [SQLITE.format(what=what) for what in ("UPDATE", "DELETE")]
    for statement in POSTGRESQL if op.get_bind().dialect.name == "postgresql" else statements:
        op.execute(statement)
