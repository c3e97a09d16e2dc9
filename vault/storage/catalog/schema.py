"""The schema's version: upgrades a database to this code's version, and refuses a database with another one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from vault.errors import ConfigError
from vault.ports.progress import Progress
from vault.storage.catalog import tags
from vault.storage.catalog.writer import NO_CATALOG
from vault.storage.migrations import pages

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import Script, ScriptDirectory

_MIGRATIONS = Path(__file__).parent.parent / "migrations"


def _config(connection: sa.Connection | None = None) -> Config:
    from alembic.config import Config  # noqa: PLC0415 - only an upgrade needs it

    config = Config()
    # A percent sign in the installation path would otherwise be read as interpolation.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def upgrade(connection: sa.Connection) -> None:
    """Run every migration the database lacks, inside the caller's transaction; ConfigError if it is newer."""
    found = current_revision(connection)
    _check_known(found)
    if found is not None and not is_current(found):
        tags.drop(connection)
    _run(connection, "head")
    tags.ensure(connection)


def upgrade_in_steps(connection: sa.Connection, progress: Progress) -> None:
    """Run every migration the database lacks, each one and each page of rows in a transaction of its own.

    An interrupted upgrade continues with the next step. Two upgrades at the same time do each step once. ConfigError if
    the database is newer.
    """
    shown, done = "", 0
    while missing := _missing(current_revision(connection)):
        # A step may make a table anew, and moves rows faster without.
        tags.drop(connection)
        script = missing[0]
        paged = hasattr(script.module, "page")
        if script.revision != shown:
            shown, done = script.revision, pages.position(connection, script.revision).done if paged else 0
            total = script.module.count(connection) if paged else None
            progress.begin(f"schema {script.revision}, {len(missing)} to go", total)
            progress.advance(done)
        at = pages.move(connection, script.revision, script.module.page) if paged else None
        if at is None:
            _run(connection, script.revision)
        else:
            progress.advance(at.done - done)
            done = at.done
        connection.commit()
    tags.ensure(connection)
    connection.commit()


def upgrade_to(connection: sa.Connection, revision: str) -> None:
    """Run the migrations up to one revision, inside the caller's transaction; ConfigError if this code lacks it."""
    _check_known(revision)
    _run(connection, revision)


def current_revision(connection: sa.Connection) -> str | None:
    """Return the revision that the database states, or None if there is no schema."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return found


def check_whole(connection: sa.Connection) -> None:
    """ConfigError if an upgrade was interrupted between two pages of rows."""
    if pages.is_half_way(connection):
        raise ConfigError(
            "catalog: an upgrade of the schema was interrupted; no row was lost",
            hint="callvault catalog upgrade continues it",
        )


def check(revision: str | None) -> None:
    """ConfigError unless `revision` is this code's."""
    check_readable(revision)
    if not is_current(revision):
        raise ConfigError(
            f"catalog: the schema is at {revision}, older than this version of callvault needs",
            hint="back it up with callvault backup create DEST, then run callvault catalog upgrade",
        )


def check_readable(revision: str | None) -> None:
    """ConfigError unless `revision` is this code's, or an older one that this code can read completely."""
    if revision is None:
        raise ConfigError("catalog: the database has no schema", hint=NO_CATALOG)
    _check_known(revision)


def is_current(revision: str | None) -> bool:
    """Tell whether `revision` is this code's."""
    return revision == _revisions()[-1]


def _run(connection: sa.Connection, revision: str) -> None:
    from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415 - only an upgrade needs it

    scripts = _scripts()

    def steps(at: Any, _context: Any) -> Any:
        return scripts._upgrade_revs(revision, at)  # noqa: SLF001 - as alembic's own command does

    with EnvironmentContext(_config(connection), scripts, fn=steps, destination_rev=revision):
        scripts.run_env()


@cache
def _scripts() -> ScriptDirectory:
    """Return the migrations, read once in a process, because alembic compiles each one."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - only an upgrade needs it

    return ScriptDirectory.from_config(_config())


@cache
def _revisions() -> Sequence[str]:
    """Return the revisions that this code has, the oldest first: their files are named for them."""
    return sorted(path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def _missing(revision: str | None) -> Sequence[Script]:
    _check_known(revision)
    return [
        script for script in reversed([*_scripts().walk_revisions()]) if revision is None or script.revision > revision
    ]


def _check_known(revision: str | None) -> None:
    if revision is not None and revision not in _revisions():
        raise ConfigError(
            f"catalog: the schema is at {revision[:80]}, newer than this version of callvault knows",
            hint="upgrade callvault to the version that last opened this catalog",
        )
