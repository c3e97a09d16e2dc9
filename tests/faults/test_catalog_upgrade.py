"""An upgrade of a catalog that ends anywhere goes on, and ends in the schema and rows of one that did not."""

import asyncio
import shutil
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.helpers.catalog_template import transaction
from tests.helpers.catalogs import SteppingClock, at_commits
from tests.helpers.older_catalogs import fill, rows_of
from tests.helpers.soak import SOAK, steps
from vault.errors import ConfigError, IntegrityError
from vault.ports.progress import Silent
from vault.storage.catalog import open_catalog, rows, schema
from vault.storage.catalog.database import engines
from vault.storage.catalog.tables import recordings
from vault.storage.postgres import PostgresSettings

OLDER = ("0028", "0031")
RECORDINGS = 60
_PAGE = 25


class Killed(Exception):
    """The process ends here."""


class Steps(Silent):
    def __init__(self):
        self.begun = []
        self.rows = 0

    def begin(self, step, total):
        self.begun.append((step, total))

    def advance(self, count):
        self.rows += count


@asynccontextmanager
async def opened(place):
    catalog = open_catalog(place, clock=SteppingClock())
    try:
        yield catalog
    finally:
        await catalog.close()


async def upgraded(place, *, ends_at=None, landed=False):
    """Upgrade, but end at a commit, before it or after; return how many there were."""
    commits = 0
    async with opened(place) as catalog:

        def strike(connection):
            nonlocal commits
            commits += 1
            if commits == ends_at:
                if landed:
                    connection.engine.dialect.do_commit(connection.connection)
                raise Killed

        with at_commits(strike):
            await catalog.upgrade()
        await catalog.check_schema()
    return commits


async def contents(place):
    async with opened(place) as catalog, catalog._database.engine.begin() as connection:
        return await connection.run_sync(rows_of)


def small_pages(monkeypatch):
    """Have revisions that move rows move a few at a time."""
    for script in schema._scripts().walk_revisions():
        if hasattr(script.module, "page"):
            monkeypatch.setattr(script.module, "_PAGE", _PAGE)


async def goes_on_wherever_it_ends(copy, monkeypatch, of):
    """Upgrade copies of one catalog: one at once, and others that end at each commit, lost or landed, and go on."""
    small_pages(monkeypatch)
    whole = await copy()
    commits = await upgraded(whole)
    assert commits > RECORDINGS // _PAGE
    expected = await contents(whole)
    assert "upgrade_position" not in expected
    for at in steps(commits, of=of):
        for landed in (False, True):
            place = await copy()
            with pytest.raises(Killed):
                await upgraded(place, ends_at=at, landed=landed)
            await upgraded(place)
            assert await contents(place) == expected, (at, landed)


@pytest.mark.soak
@pytest.mark.parametrize("revision", OLDER)
async def test_an_upgrade_that_ends_at_any_commit_goes_on_to_the_same_schema_and_rows(tmp_path, revision, monkeypatch):
    older = tmp_path / "older.db"
    with transaction(older) as connection:
        fill(connection, revision, RECORDINGS)
    count = iter(range(1000))

    async def copy():
        return Path(shutil.copyfile(older, tmp_path / f"{next(count)}.db"))

    await goes_on_wherever_it_ends(copy, monkeypatch, of=f"upgrade from {revision}")


@pytest.mark.soak
@pytest.mark.xdist_group("postgres")
async def test_an_upgrade_on_postgresql_that_ends_at_any_commit_goes_on_to_the_same_schema_and_rows(
    postgres, monkeypatch
):
    older = await postgres.new_database()
    source = engines(PostgresSettings(url=postgres.url(older)))
    async with source.writing.begin() as connection:
        await connection.run_sync(fill, "0029", RECORDINGS)
    await source.writing.dispose()

    async def copy():
        return PostgresSettings(url=postgres.url(await postgres.new_database(template=older)))

    await goes_on_wherever_it_ends(copy, monkeypatch, of="upgrade on postgresql")


async def test_a_catalog_that_is_half_upgraded_is_neither_served_nor_backed_up_and_says_how_to_go_on(
    tmp_path, monkeypatch
):
    path = tmp_path / "catalog.db"
    with transaction(path) as connection:
        fill(connection, "0031", RECORDINGS)
    small_pages(monkeypatch)
    with pytest.raises(Killed):
        await upgraded(path, ends_at=3)
    async with opened(path) as catalog:
        for attempt in (catalog.check_schema, catalog.snapshot().__aenter__):
            with pytest.raises(ConfigError, match="interrupted") as refused:
                await attempt()
            assert "callvault catalog upgrade" in refused.value.hint
        progress = Steps()
        assert await catalog.upgrade(progress)
        # It begins with the two pages that were there, and ends with all.
        lists = RECORDINGS // 4
        assert [total for _, total in progress.begun if total is not None] == [RECORDINGS, RECORDINGS, lists]
        assert progress.rows == 2 * RECORDINGS + lists  # and as many entries of the trail
        assert not await catalog.upgrade(progress)
        await catalog.check_schema()


async def test_an_object_under_another_name_than_its_row_gives_is_not_moved(tmp_path):
    """The name would be lost, and the object with it."""
    path = tmp_path / "catalog.db"
    with transaction(path) as connection:
        fill(connection, "0031", 4)
        connection.execute(sa.text("UPDATE segments SET name = name || '2' WHERE number = 1"))
    async with opened(path) as catalog:
        with pytest.raises(IntegrityError):
            await catalog.upgrade()
    with transaction(path) as connection:
        connection.execute(sa.text("UPDATE segments SET name = substr(name, 1, length(name) - 1) WHERE number = 1"))
        before = connection.execute(sa.text("SELECT name, sha256 FROM segments ORDER BY name")).all()
    async with opened(path) as catalog:
        await catalog.upgrade()
        ids = [rows.recording_id(row.id) for row in await catalog._database.fetch(sa.select(recordings.c.id))]
        found = [(ref.name, ref.sha256) for refs in (await catalog.segments_of(ids)).values() for ref in refs]
    assert sorted(found) == [tuple(row) for row in before]


_UPGRADE = """
import asyncio, sys
from pathlib import Path
from tests.helpers.catalogs import SteppingClock
from vault.storage.catalog import open_catalog, schema
from vault.storage.postgres import PostgresSettings

class Told:
    def begin(self, step, total):
        print(step, flush=True)

    def advance(self, count):
        print(count, flush=True)

for script in schema._scripts().walk_revisions():
    script.module._PAGE = 40
place = sys.argv[1]
place = PostgresSettings(url=place) if place.startswith("postgresql:") else Path(place)
asyncio.run(open_catalog(place, clock=SteppingClock()).upgrade(Told()))
"""


async def killed_again_and_again(place):
    """Upgrade in processes that are killed after more and more of what they tell; return how many were."""
    kills = 0
    while True:
        text = str(place) if isinstance(place, Path) else place.url
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _UPGRADE, text, stdout=asyncio.subprocess.PIPE
        )
        told = 0
        while told < 3 * (kills + 1) and await process.stdout.readline():
            told += 1
        if told == 3 * (kills + 1):
            process.kill()
        await process.stdout.read()
        code = await process.wait()
        if code == 0:
            return kills
        assert code == -signal.SIGKILL
        kills += 1


@pytest.mark.soak
@pytest.mark.skipif(not SOAK, reason="a soak: each kill takes a process")
async def test_an_upgrade_killed_again_and_again_ends_in_the_same_schema_and_rows(tmp_path):
    whole, path = (tmp_path / name for name in ("whole.db", "killed.db"))
    with transaction(path) as connection:
        fill(connection, "0028", 1000)
    shutil.copyfile(path, whole)
    await upgraded(whole)
    assert await killed_again_and_again(path) > 2
    assert await contents(path) == await contents(whole)


@pytest.mark.soak
@pytest.mark.skipif(not SOAK, reason="a soak: each kill takes a process")
@pytest.mark.xdist_group("postgres")
async def test_an_upgrade_on_postgresql_killed_again_and_again_ends_in_the_same_schema_and_rows(postgres):
    older = await postgres.new_database()
    source = engines(PostgresSettings(url=postgres.url(older)))
    async with source.writing.begin() as connection:
        await connection.run_sync(fill, "0028", 1000)
    await source.writing.dispose()
    whole, killed = [PostgresSettings(url=postgres.url(await postgres.new_database(template=older))) for _ in range(2)]
    await upgraded(whole)
    assert await killed_again_and_again(killed) > 2
    assert await contents(killed) == await contents(whole)
