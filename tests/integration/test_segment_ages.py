"""How many objects a long call becomes, and that a filling journal takes the growth back before it refuses a call."""

import pytest

from tests.helpers.app import SETTINGS, sound
from tests.helpers.crashing import memory_directory
from tests.helpers.recorder import until
from tests.helpers.restores import Site
from vault.config import parse_config

SECOND = 100
"""Bytes of a second of these calls."""


@pytest.fixture
async def site():
    """A vault with the default ages and a small journal."""
    with memory_directory() as base:
        site = Site(base)
        site.document = {**SETTINGS, "segments": {}, "journal": {"max_bytes": "256KiB", "file_bytes": "16KiB"}}
        site.config = parse_config(site.document, base=base)
        await site.create()
        yield site


async def stored(vault, session):
    """Let the storer see the session, and wait until it has stored what is due."""
    vault.storer.look_at_journal()
    vault.storer.poke(session)
    await until(lambda: not session.storing)


async def says(site, vault, session, seconds):
    """Hear the call for so long, in steps of ten seconds of the clock."""
    for _ in range(0, seconds, 10):
        await vault.ingest.write(session, sound(10 * SECOND))
        await session.entry.barrier()
        await stored(vault, session)
        site.clock.slept += 10
        await vault.keyring.refresh()
        await stored(vault, session)


async def test_a_call_of_half_an_hour_is_seventeen_objects_and_a_manifest(site):
    async with site.open() as vault:
        session = await site.begin(vault, "long", b"")
        await says(site, vault, session, 30 * 60)
        row = await site.finished(vault, session)
        assert row.stored_bytes == 30 * 60 * SECOND
        found = (await vault.catalog.segments_of([row.id]))[row.id]
        assert len([each for each in found if each.length]) == 17


async def test_a_filling_journal_has_waiting_calls_stored_and_goes_on_taking_new_ones(site):
    async with site.open() as vault:
        session = await site.begin(vault, "long", b"")
        await says(site, vault, session, 10 * 60)
        await vault.storer.drain(session)
        cut = len(session.segments)
        await vault.ingest.write(session, sound(5 * SECOND))
        await session.entry.barrier()
        await stored(vault, session)
        site.clock.slept += 40
        await vault.keyring.refresh()
        await stored(vault, session)
        assert len(session.segments) == cut  # forty seconds are nothing to a call that is ten minutes old
        others = [await site.begin(vault, f"other-{n}", sound(15_000, n)) for n in range(10)]
        assert vault.journal.filled() >= 0.5
        await stored(vault, session)
        assert len(session.segments) == cut + 1
        assert vault.journal.refusal() is None
        for each in others:
            await site.finished(vault, each)
