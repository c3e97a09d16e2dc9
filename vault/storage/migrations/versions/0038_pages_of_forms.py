"""The forms of certificates say when they came, so that a backup reads and writes only the new ones."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("certificate_forms", sa.Column("batch", sa.Text(), nullable=False, server_default=""))
    op.create_index("ix_certificate_forms_batch", "certificate_forms", ["batch"])
