"""The schema's version: upgrading a database to this code's, and refusing one without or with another."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from vault.errors import ConfigError
from vault.storage.catalog.writer import NO_CATALOG

_MIGRATIONS = Path(__file__).parent.parent / "migrations"


def _config(connection: sa.Connection | None = None) -> Config:
    config = Config()
    # A percent sign in the installation path would otherwise be read as interpolation.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def upgrade(connection: sa.Connection) -> None:
    """Run every migration the database lacks, inside the caller's transaction; ConfigError if it is newer."""
    _check_known(current_revision(connection))
    command.upgrade(_config(connection), "head")


def upgrade_to(connection: sa.Connection, revision: str) -> None:
    """Run the migrations up to one revision, inside the caller's transaction; ConfigError if this code lacks it."""
    _check_known(revision)
    command.upgrade(_config(connection), revision)


def current_revision(connection: sa.Connection) -> str | None:
    """Return the revision that the database states, or None if there is no schema."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return found


def check(revision: str | None) -> None:
    """ConfigError unless `revision` is this code's."""
    check_readable(revision)
    if not is_current(revision):
        raise ConfigError(
            f"catalog: the schema is at {revision}, older than this version of callvault needs",
            hint="back it up as it is with callvault backup create DEST, then run callvault catalog upgrade",
        )


def check_readable(revision: str | None) -> None:
    """ConfigError unless `revision` is this code's, or an older one that this code can read completely."""
    if revision is None:
        raise ConfigError("catalog: the database has no schema", hint=NO_CATALOG)
    _check_known(revision)


def is_current(revision: str | None) -> bool:
    """Tell whether `revision` is this code's."""
    return revision == _revisions()[0]


@cache
def _revisions() -> Sequence[str]:
    """Return the revisions that this code has, the newest first."""
    # Alembic compiles every migration for this, so it is asked once in a process.
    return [step.revision for step in ScriptDirectory.from_config(_config()).walk_revisions()]


def _check_known(revision: str | None) -> None:
    if revision is not None and revision not in _revisions():
        raise ConfigError(
            f"catalog: the schema is at {revision[:80]}, newer than this version of callvault knows",
            hint="upgrade callvault to the version that last opened this catalog",
        )
