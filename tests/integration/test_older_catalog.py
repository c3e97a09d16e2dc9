"""An older catalog put back beside the current keyring: survivors play, the dead stay dead, no leaf is given twice."""

import asyncio
import shutil
from datetime import timedelta

from tests.helpers.app import SETTINGS, AppClock, sound
from tests.helpers.crashing import memory_directory
from tests.helpers.tenants import metadata_kept
from vault.config import parse_config
from vault.errors import Shredded
from vault.ids import TenantId, TokenId
from vault.model import CallFacts, Codec, Container, Media, Principal, Role, ShredPlan
from vault.ports.recordings import RecordingQuery
from vault.retention.periods import Period
from vault.services.ingest.sessions import CallStart
from vault.services.recordings.search import Wanted
from vault.wiring import init_vault, open_vault

NAMED = {"processor": "Vault Ltd", "contact": "dpo@vault.example"}
TENANT = TenantId("northfield")
RECORDER = Principal(token_id=TokenId("tok_" + "0" * 32), name="recorder", role=Role.RECORDER, tenant=TENANT)
MEDIA = Media(container=Container.RAW, codec=Codec.PCMU, rate=8000, channels=1)


async def record(vault, key, audio, days=10):
    call = CallStart(
        tenant=TENANT,
        call_key=key,
        media=MEDIA,
        facts=CallFacts(caller="+442079460123"),
        started_at=None,
        retention=Period(timedelta(days=days)),
    )
    session = await vault.ingest.start(call, actor=RECORDER)
    await vault.ingest.write(session, audio)
    await vault.ingest.finish(session)
    async with asyncio.timeout(10):
        await session.done.wait()
    return session.recording


async def heard(vault, recording):
    row = await vault.catalog.recording(recording.id)
    readable = await vault.playback.prepare(row, vault.keyring.derive(row.audio))
    return b"".join([piece async for piece in vault.playback.read(readable, 0, readable.length)])


async def test_an_older_catalog_reads_survivors_revives_nothing_and_reuses_no_leaf():
    with memory_directory() as base:
        clock = AppClock()
        config = parse_config({**SETTINGS, "identity": NAMED}, base=base)
        await init_vault(config, clock=clock)
        async with open_vault(config, clock=clock) as vault:
            await vault.tenants.add(
                identifier=TENANT, name="N", controller="N", contact="dpo", retention=None, actor=None
            )
            survivor = await record(vault, "survivor", sound(5000, 1), days=100)
            doomed = await record(vault, "doomed", sound(5000, 2), days=1)
            generation = vault.keyring.generation
        backup = config.catalog_path.with_name("backup.db")
        await asyncio.to_thread(shutil.copyfile, config.catalog_path, backup)
        async with open_vault(config, clock=clock) as vault:
            assert vault.keyring.generation == generation, "an untouched catalog is not taken for an older one"
            newer = await record(vault, "newer", sound(5000, 3), days=100)
            clock.advance(days=3)
            assert (await vault.sweeper.sweep(trigger="expiry", actor=None)).shredded == 1
        for leftover in ("-wal", "-shm"):
            config.catalog_path.with_name(config.catalog_path.name + leftover).unlink(missing_ok=True)
        await asyncio.to_thread(shutil.copyfile, backup, config.catalog_path)
        async with open_vault(config, clock=clock) as vault:
            assert vault.keyring.generation > generation
            assert await heard(vault, survivor) == sound(5000, 1)
            for key, recording in (("survivor", survivor), ("newer", newer)):
                assert (await vault.search.call(TENANT, key)).id == recording.id
            found = await vault.search.page(RecordingQuery(tenant=TENANT), Wanted(caller="020 7946 0123"))
            assert {row.id for row in found} >= {survivor.id, newer.id}, "a rebuilt row is not found by its number"
            try:
                await heard(vault, doomed)
            except Shredded:
                pass
            else:
                raise AssertionError("a shredded recording came back")
            again = await record(vault, "after", sound(5000, 4), days=97)
            used = {survivor.audio, doomed.audio, newer.audio, survivor.metadata, doomed.metadata, newer.metadata}
            assert not used & {again.audio, again.metadata}


async def test_metadata_that_went_since_is_forgotten_by_an_older_catalog_and_certified_by_nobody():
    with memory_directory() as base:
        clock = AppClock()
        config = parse_config({**SETTINGS, "identity": NAMED}, base=base)
        await init_vault(config, clock=clock)
        async with open_vault(config, clock=clock) as vault:
            await vault.tenants.add(
                identifier=TENANT, name="N", controller="N", contact="dpo", retention=None, actor=None
            )
            kept = await record(vault, "kept", sound(5000, 1), days=100)
        backup = config.catalog_path.with_name("backup.db")
        await asyncio.to_thread(shutil.copyfile, config.catalog_path, backup)
        async with open_vault(config, clock=clock) as vault, vault.keyring.writer() as writer:
            # As versions did that let metadata go before its audio.
            month = (await vault.catalog.recording(kept.id)).metadata.cohort.period
            await writer.shred(ShredPlan(intent_id="shr_old", at=clock.now(), metadata_through={TENANT: month}))
        for leftover in ("-wal", "-shm"):
            config.catalog_path.with_name(config.catalog_path.name + leftover).unlink(missing_ok=True)
        await asyncio.to_thread(shutil.copyfile, backup, config.catalog_path)
        async with open_vault(config, clock=clock) as vault:
            row = await vault.catalog.recording(kept.id)
            assert (row.sealed_facts, row.call_token, row.caller_token) == (b"", kept.id, None)
            await metadata_kept(vault, TENANT, days=1)
            clock.advance(days=40)
            assert (await vault.sweeper.sweep(trigger="expiry", actor=None)).shredded == 0
            assert await vault.catalog.certificates(recording=kept.id) == []
            assert await heard(vault, kept) == sound(5000, 1)
