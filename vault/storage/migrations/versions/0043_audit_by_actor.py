"""The index of the trail by actor has the end of the token's id and no time, and no entry of the vault itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_audit_actor", "audit")
    of_token = sa.text("actor != 'vault'")
    op.create_index(
        "ix_audit_actor",
        "audit",
        [sa.text("substr(actor, 25, 12)"), "seq"],
        sqlite_where=of_token,
        postgresql_where=of_token,
        postgresql_with={"fillfactor": 100},
    )
