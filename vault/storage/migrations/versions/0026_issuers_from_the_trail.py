"""Tokens from before their issuer was stored get it from the audit trail: two people decide only if it is known."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_audit = sa.table("audit", *(sa.column(each, sa.Text) for each in ("event", "actor", "target", "detail")))
_tokens = sa.table("tokens", sa.column("id", sa.Text), sa.column("issued_by", sa.Text))


def upgrade() -> None:
    catalog = op.get_bind()
    known = set(catalog.scalars(sa.select(_tokens.c.id)))
    issues = sa.select(_audit.c.actor, _audit.c.target, _audit.c.detail).where(_audit.c.event == "admin.token")
    for actor, target, detail in catalog.execute(issues).all():
        issuer = actor.partition(" ")[0]
        if json.loads(detail).get("action") == "issued" and issuer in known:
            unknown = (_tokens.c.id == target) & _tokens.c.issued_by.is_(None)
            catalog.execute(sa.update(_tokens).where(unknown).values(issued_by=issuer))
