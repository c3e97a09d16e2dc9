"""Recorders' secrets, sealed under a key of the keyring: S3 request signatures are checked with the secret itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Existing tokens have none: only their holders know the secret, so they cannot sign requests.
    op.add_column("tokens", sa.Column("sealed_secret", sa.LargeBinary(), nullable=True))
