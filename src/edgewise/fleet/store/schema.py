"""The tables. Times are milliseconds since 1970 in UTC; documents are msgspec JSON.

A change here needs a migration beside `migrations/versions/`: a test compares the two.
"""

from __future__ import annotations

import sqlalchemy as sql

metadata = sql.MetaData()

Id = sql.String(128)
Count = sql.BigInteger()
Ordinal = sql.BigInteger().with_variant(sql.Integer(), "sqlite")  # only INTEGER counts up by itself there

token = sql.Table(
    "token",
    metadata,
    sql.Column("id", Id, primary_key=True),
    sql.Column("role", sql.String(16), nullable=False),
    sql.Column("products", sql.Text, nullable=False),  # JSON list; empty: all products
    sql.Column("secret_sha256", sql.LargeBinary, nullable=False),
    sql.Column("note", sql.Text, nullable=False),
    sql.Column("created_ms", Count, nullable=False),
    sql.Column("expires_ms", Count),
    sql.Column("revoked_ms", Count),
)

enrolment = sql.Table(
    "enrolment",
    metadata,
    sql.Column("id", Id, primary_key=True),
    sql.Column("secret_sha256", sql.LargeBinary, nullable=False),
    sql.Column("product", Id, nullable=False),
    sql.Column("device_class", Id, nullable=False),
    sql.Column("labels", sql.Text, nullable=False),
    sql.Column("created_ms", Count, nullable=False),
    sql.Column("expires_ms", Count, nullable=False),
    sql.Column("used_by", Id),
)

device = sql.Table(
    "device",
    metadata,
    sql.Column("id", Id, primary_key=True),
    sql.Column("product", Id, nullable=False, index=True),
    sql.Column("device_class", Id, nullable=False),
    sql.Column("labels", sql.Text, nullable=False),
    sql.Column("public_key", sql.LargeBinary, nullable=False),
    sql.Column("token_id", Id, unique=True),
    sql.Column("token_sha256", sql.LargeBinary),  # for clients that cannot sign: DDI, OTLP exporters
    sql.Column("release", Id),  # digest of what it last said it runs
    sql.Column("enrolled_ms", Count, nullable=False),
    sql.Column("seen_ms", Count),
    sql.Column("revoked_ms", Count),
)

nonce = sql.Table(
    "nonce",
    metadata,
    sql.Column("device_id", Id, primary_key=True),
    sql.Column("nonce", sql.String(32), primary_key=True),
    sql.Column("expires_ms", Count, nullable=False, index=True),
)

release = sql.Table(
    "release",
    metadata,
    sql.Column("product", Id, primary_key=True),
    sql.Column("version", Id, primary_key=True),
    sql.Column("digest", sql.String(64), nullable=False, index=True),  # of the manifest: what devices report
    sql.Column("sha256", sql.String(64), nullable=False),  # of the file
    sql.Column("size_bytes", Count, nullable=False),
    sql.Column("object", sql.Text, nullable=False),
    sql.Column("document", sql.LargeBinary, nullable=False),
    sql.Column("created_ms", Count, nullable=False),
    sql.Column("created_by", Id, nullable=False),
)

rollout = sql.Table(
    "rollout",
    metadata,
    sql.Column("id", Id, primary_key=True),
    sql.Column("product", Id, nullable=False, index=True),
    sql.Column("version", Id, nullable=False),
    sql.Column("state", sql.String(16), nullable=False, index=True),
    sql.Column("revision", sql.Integer, nullable=False),  # a change names the revision it was made from
    sql.Column("document", sql.LargeBinary, nullable=False),
    sql.Column("created_ms", Count, nullable=False),
    sql.Column("started_ms", Count),  # when it left the draft: telemetry is kept apart before and since
    sql.Column("updated_ms", Count, nullable=False),
)

rollout_event = sql.Table(
    "rollout_event",
    metadata,
    sql.Column("id", Ordinal, primary_key=True, autoincrement=True),
    sql.Column("rollout_id", Id, nullable=False, index=True),
    sql.Column("at_ms", Count, nullable=False),
    sql.Column("document", sql.LargeBinary, nullable=False),
)

envelope = sql.Table(
    "envelope",
    metadata,
    sql.Column("device_id", Id, primary_key=True),
    sql.Column("boot_id", Id, primary_key=True),
    sql.Column("sequence", Count, primary_key=True),
    sql.Column("product", Id, nullable=False),
    sql.Column("received_ms", Count, nullable=False),
    sql.Column("document", sql.LargeBinary),  # taken away when it has been merged; the key stays
    sql.Column("fault", sql.Text),  # why it could not be merged; the document stays then
)
_to_merge = sql.and_(envelope.c.document.is_not(None), envelope.c.fault.is_(None))
sql.Index("envelope_to_merge", envelope.c.received_ms, postgresql_where=_to_merge, sqlite_where=_to_merge)

cell = sql.Table(  # what one device reported of one release in one stretch of time
    "cell",
    metadata,
    sql.Column("device_id", Id, primary_key=True),
    sql.Column("release", sql.String(64), primary_key=True),
    sql.Column("start_ms", Count, primary_key=True),  # of the day, or of a rollout or stage that began in it
    sql.Column("product", Id, nullable=False),
    sql.Column("device_class", Id, nullable=False),
    sql.Column("reported_ms", Count, nullable=False),  # when the last of it came in
    sql.Column("alarms", Count, nullable=False),  # crash loops and refused signatures: these stop a rollout at once
    sql.Column("document", sql.LargeBinary, nullable=False),
)
sql.Index("cell_by_product", cell.c.product, cell.c.start_ms)

series = sql.Table(  # what all devices of a class reported of one variant in five minutes
    "series",
    metadata,
    sql.Column("product", Id, primary_key=True),
    sql.Column("start_ms", Count, primary_key=True),
    sql.Column("release", sql.String(64), primary_key=True),
    sql.Column("variant", Id, primary_key=True),
    sql.Column("device_class", Id, primary_key=True),
    sql.Column("document", sql.LargeBinary, nullable=False),
)

outbound = sql.Table(  # OTLP requests that a collector has not taken yet
    "outbound",
    metadata,
    sql.Column("id", Ordinal, primary_key=True, autoincrement=True),
    sql.Column("claimed_ms", Count, nullable=False),  # when a process last began to send it; 0: never
    sql.Column("document", sql.LargeBinary, nullable=False),
)

alert = sql.Table(
    "alert",
    metadata,
    sql.Column("id", Id, primary_key=True),
    sql.Column("product", Id, nullable=False, index=True),
    sql.Column("opened_ms", Count, nullable=False),
    sql.Column("closed_ms", Count),
    sql.Column("document", sql.LargeBinary, nullable=False),
)

audit = sql.Table(
    "audit",
    metadata,
    sql.Column("sequence", Ordinal, primary_key=True, autoincrement=False),
    sql.Column("at_ms", Count, nullable=False),
    sql.Column("actor", sql.String(160), nullable=False),
    sql.Column("action", sql.String(64), nullable=False),
    sql.Column("subject", sql.Text, nullable=False),
    sql.Column("product", Id),  # None: of the server as a whole
    sql.Column("detail", sql.Text, nullable=False),
    sql.Column("previous_sha256", sql.String(64), nullable=False),
    sql.Column("sha256", sql.String(64), nullable=False),
)

action = sql.Table(
    "ddi_action",
    metadata,
    sql.Column("id", Ordinal, primary_key=True, autoincrement=True),
    sql.Column("device_id", Id, nullable=False, index=True),
    sql.Column("rollout_id", Id, nullable=False),
    sql.Column("version", Id, nullable=False),
    sql.Column("state", sql.String(16), nullable=False),
    sql.Column("detail", sql.Text, nullable=False),
    sql.Column("updated_ms", Count, nullable=False),
    sql.UniqueConstraint("device_id", "rollout_id", "version"),
)
