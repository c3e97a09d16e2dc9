"""Tokens stored without an issuer get it from the audit trail: two people can decide only if issuers are known."""

from __future__ import annotations

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

# One statement, so that it can be printed too.
_ISSUERS = """
UPDATE tokens SET issued_by = (
    SELECT issuers.id FROM audit JOIN tokens AS issuers ON issuers.id = substr(audit.actor, 1, length(issuers.id))
    WHERE audit.target = tokens.id AND audit.event = 'admin.token' AND audit.detail LIKE '%"action":%"issued"%'
    AND substr(audit.actor, length(issuers.id) + 1, 1) = ' '
    ORDER BY audit.seq LIMIT 1
)
WHERE issued_by IS NULL
"""


def upgrade() -> None:
    op.execute(_ISSUERS)
