"""What the tests of backup and restore share: a vault on a movable clock, its calls and its disasters."""

from __future__ import annotations

import asyncio
import shutil
import struct
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from tests.helpers import approvals
from tests.helpers.app import SETTINGS, AppClock, sound
from vault.config import Config, parse_config
from vault.errors import Shredded
from vault.ids import RecordingId, TenantId, TokenId
from vault.media.wav import wav_header
from vault.model import CallFacts, Codec, Container, HoldKind, Media, Principal, Recording, Role
from vault.ports.progress import Silent
from vault.retention.periods import Period
from vault.services.holds.holds import HoldRequest
from vault.services.ingest.sessions import CallStart, IngestSession
from vault.services.vault import Vault
from vault.wiring import init_vault, open_vault
from vault.wiring.backup import Restored, open_backups, restore_vault

TENANT = TenantId("northfield")
MEDIA = Media(container=Container.RAW, codec=Codec.PCMU, rate=8000, channels=1)


def who(name: str, role: Role = Role.COMPLIANCE, tenant: TenantId = TENANT) -> Principal:
    return Principal(token_id=TokenId("tok_" + name.encode().hex().ljust(32, "0")), name=name, role=role, tenant=tenant)


class Site:
    """One vault's directory, its clock, and what was recorded there."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.clock = AppClock()
        self.document = SETTINGS
        self.config: Config = parse_config(self.document, base=base)
        self.destination = str(base / "backups")
        self.audio: dict[RecordingId, bytes] = {}

    async def create(self) -> None:
        await init_vault(self.config, trial=True, clock=self.clock)
        async with self.open() as vault:
            await self.tenant(vault, TENANT)

    @staticmethod
    async def tenant(vault: Vault, tenant: TenantId) -> None:
        await vault.tenants.add(
            identifier=tenant, name=tenant, controller="N", contact="dpo", retention=None, actor=None
        )

    @asynccontextmanager
    async def open(self, **options):
        async with open_vault(self.config, clock=self.clock, **options) as vault:
            yield vault

    async def begin(
        self, vault: Vault, key: str, audio: bytes, *, days: float = 10, tenant: TenantId = TENANT, media: Media = MEDIA
    ):
        call = CallStart(
            tenant=tenant,
            call_key=key,
            media=media,
            facts=CallFacts(caller="+442079460123"),
            started_at=None,
            retention=Period(timedelta(days=days)),
        )
        session = await vault.ingest.start(call, actor=who("pbx", Role.RECORDER, tenant))
        await vault.ingest.write(session, audio)
        await session.entry.barrier()
        self.audio[session.recording.id] = audio
        return session

    async def record(
        self, vault: Vault, key: str, *, days: float = 10, tenant: TenantId = TENANT, size: int = 5000
    ) -> Recording:
        session = await self.begin(vault, key, sound(size, len(self.audio) + 1), days=days, tenant=tenant)
        return await self.finished(vault, session)

    async def record_wav(self, vault: Vault, key: str, *, days: float) -> Recording:
        """Record three seconds in a WAV that nobody finished, behind much that is no sample."""
        head = wav_header(rate=8000, channels=1, data_bytes=0)
        audio = head[:36] + b"JUNK" + struct.pack("<I", 1 << 17) + bytes(1 << 17) + head[36:] + sound(48_000, 7)
        media = Media(container=Container.WAV, codec=Codec.STREAM)
        return await self.finished(vault, await self.begin(vault, key, audio, days=days, media=media))

    @staticmethod
    async def finished(vault: Vault, session: IngestSession) -> Recording:
        await vault.ingest.finish(session)
        async with asyncio.timeout(10):
            await session.done.wait()
        return await vault.catalog.recording(session.recording.id)

    async def hold(self, vault: Vault, *recordings: RecordingId):
        request = HoldRequest(
            tenant=TENANT,
            kind=HoldKind.LEGAL,
            matter="SMITH-2026",
            reason="claim",
            authority="general counsel",
            owner="legal",
            review_at=self.clock.now() + timedelta(days=300),
            recordings=recordings,
        )
        return await vault.holds.place(request, actor=who("ann"))

    async def release(self, vault: Vault, hold) -> None:
        await vault.holds.request_release(hold.id, reason="settled", actor=who("ann"))
        await approvals.known(vault, who("ann"))
        await approvals.approve_release(vault, hold.id, actor=who("bob", Role.DPO))

    @staticmethod
    async def sweep(vault: Vault) -> int:
        return (await vault.sweeper.sweep(trigger="expiry", actor=None)).shredded

    # -- disasters and what comes after ---------------------------------------------------------------------------

    async def back_up(self, *, objects: bool = True):
        async with open_backups(self.config, self.destination, create=True, clock=self.clock) as backups:
            return await backups.make(objects=objects, progress=Silent())

    def lose_catalog(self) -> None:
        for path in self.config.catalog_path.parent.glob(self.config.catalog_path.name + "*"):
            path.unlink()

    def lose_objects_but_newer(self, *newer: Recording) -> None:
        """Lose every object of the store, except those of recordings that no backup has."""
        keep = {row.id for row in newer}
        for directory in self.config.objects_path.glob("objects/v1/*/*/*"):
            if directory.name not in keep:
                shutil.rmtree(directory)

    def put_everything_in_the_pool_back(self) -> None:
        """Copy the pool over the store as a careless tool would, the dead included."""
        shutil.copytree(
            self.base / "backups/objects/pool/v1", self.config.objects_path / "objects/v1", dirs_exist_ok=True
        )

    async def restore(self, backup: str | None = None) -> Restored:
        return await restore_vault(self.config, self.destination, backup, progress=Silent(), clock=self.clock)

    async def heard(self, vault: Vault, recording: RecordingId) -> bytes:
        row = await vault.catalog.recording(recording)
        readable = await vault.playback.open(row.id, actor=who("ann", tenant=row.tenant), purpose="quality")
        return b"".join([piece async for piece in vault.playback.read(readable, 0, readable.length)])

    async def survives(self, vault: Vault, *recordings: RecordingId) -> None:
        for recording in recordings:
            assert await self.heard(vault, recording) == self.audio[recording], recording

    async def is_gone(self, vault: Vault, *recordings: RecordingId) -> None:
        for recording in recordings:
            try:
                await self.heard(vault, recording)
            except Shredded:
                continue
            raise AssertionError(f"{recording} is readable")
