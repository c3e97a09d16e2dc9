"""A backup in a bucket of a real store, under a prefix: made, verified, pruned and restored."""

from datetime import timedelta

import pytest

from tests.helpers.app import SETTINGS
from tests.helpers.crashing import memory_directory
from tests.helpers.restores import Site
from tests.helpers.seaweed import ACCESS_KEY, REGION, SECRET_KEY
from vault.config import parse_config
from vault.errors import ConfigError, Invalid
from vault.ports.progress import Silent
from vault.storage.s3 import bucket
from vault.wiring.backup import open_backups

pytestmark = pytest.mark.xdist_group("seaweed")


@pytest.fixture
async def site(seaweed):
    bucket.provision(seaweed.settings("backups"))
    access = {
        "endpoint": seaweed.endpoint,
        "region": REGION,
        "allowed_regions": [REGION],
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
    }
    with memory_directory() as base:
        made = Site(base)
        made.document = {**SETTINGS, "backup": {"s3": access}}
        made.config = parse_config(made.document, base=base)
        made.destination = "s3://backups/college/vault"
        await made.create()
        yield made


async def test_a_backup_in_a_bucket_restores(site):
    async with site.open() as vault:
        survivor = await site.record(vault, "survivor", days=300, size=200_000)
        doomed = await site.record(vault, "doomed", days=1)
        old = (await site.back_up()).manifest.backup
        site.clock.advance(days=60)
        assert await site.sweep(vault) == 1
        newer = await site.record(vault, "newer", days=300)
        made = await site.back_up()
        assert made.copied_objects == 2
    async with open_backups(site.config, site.destination, clock=site.clock) as backups:
        assert [each.backup for each in await backups.listed()] == [old, made.manifest.backup]
        assert (await backups.verify(old, quick=False, progress=Silent())).problems == ()
        pruned = await backups.prune(keep=timedelta(days=30), progress=Silent())
        assert (pruned.dropped, pruned.objects) == ((old,), 2)
        assert (await backups.verify(None, quick=True, progress=Silent())).problems == ()
    site.lose_catalog()
    site.lose_objects_but_newer()
    found = await site.restore()
    assert (found.objects.restored, found.objects.lost) == (7, [])
    async with site.open() as vault:
        await site.survives(vault, survivor.id, newer.id)
        await site.is_gone(vault, doomed.id)


async def test_a_destination_that_cannot_be_reached_is_said_before_anything_is_done(site):
    for destination, error in (("s3://no-such-bucket/x", ConfigError), ("ftp://host/x", Invalid)):
        site.destination = destination
        with pytest.raises(error):
            await site.back_up()
    site.destination = str(site.base / "nothing-here")
    with pytest.raises(ConfigError):
        await site.restore()
