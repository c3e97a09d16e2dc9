"""The lists of deleted objects, copied into the rows of their recordings; their table goes.

A page is a stretch of lists.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

from vault.storage.migrations import pages

revision = "0048"
down_revision = "0047"
branch_labels = None
depends_on = None

_PAGE = 5_000
_LAST = sa.text(
    "SELECT recording FROM (SELECT recording FROM object_lists WHERE recording > :after ORDER BY recording LIMIT :page)"
    " AS p ORDER BY recording DESC LIMIT 1"
)
_PAGE_OF = "recording > :after AND recording <= :last"
_COUNT = sa.text(f"SELECT count(*) FROM object_lists WHERE {_PAGE_OF}")  # noqa: S608 - no values
_COPY = "UPDATE recordings SET objects = l.objects FROM object_lists AS l WHERE l.recording = recordings.id"


def count(connection: sa.Connection) -> int:
    found: int = connection.execute(sa.text("SELECT count(*) FROM object_lists")).scalar_one()
    return found


def page(connection: sa.Connection, after: bytes) -> tuple[bytes, int] | None:
    last = connection.execute(_LAST, {"after": after, "page": _PAGE}).scalar()
    if last is None:
        return None
    place = {"after": after, "last": last}
    connection.execute(sa.text(f"{_COPY} AND {_PAGE_OF}"), place)
    return bytes(last), connection.execute(_COUNT, place).scalar_one()


def upgrade() -> None:
    if context.is_offline_mode():
        op.execute(_COPY)
    else:
        pages.finish(op.get_bind(), revision, page)
    op.drop_table("object_lists")
