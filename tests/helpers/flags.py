"""Calls that are flagged while they last."""

import asyncio
from contextlib import asynccontextmanager

from tests.helpers.app import TENANTS, sound

OURS = TENANTS[0]


@asynccontextmanager
async def calling(app, key="live", audio=None):
    """A call under way, with its first half durable; ends when the block does."""
    audio, over = audio or sound(100_000), asyncio.Event()

    async def speaking():
        yield audio[:50_000]
        await over.wait()
        yield audio[50_000:]

    upload = asyncio.create_task(app.upload(key, speaking()))
    while (session := app.vault.ingest.live_call(OURS, key)) is None or session.durable < 50_000:
        await asyncio.sleep(0.01)
    yield session.recording.id
    over.set()
    assert await upload == session.recording.id
