"""Calls of every kind and age, a service that ends at any of its writes, and what is true whatever it ends at."""

from __future__ import annotations

import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.helpers import approvals
from tests.helpers.crashing import (
    ACME,
    BETA,
    ManualClock,
    Process,
    begin,
    call,
    config_at,
    crash_is_the_end,
    hold_request,
    leases_run_out,
    memory_directory,
    person,
    play,
    record,
    start,
    storing,
)
from tests.helpers.soak import sampled, steps
from tests.helpers.trail import audit_entries
from vault.certificates.audit_chain import verify_chain
from vault.certificates.document import verify_certificate
from vault.config import Config
from vault.crypto.signing import VerifyKey
from vault.errors import Shredded
from vault.format.names import recording_prefix
from vault.ids import RecordingId
from vault.keystore.root import file
from vault.model import CertificateStatus, Hold, RecordingState, Role
from vault.services.vault import Vault
from vault.wiring import init_vault, open_vault

MODES = sampled("mode", {"lost": "lost", "landed": "landed"})


SOUND = random.Random(7).randbytes


ANN, BOB, DAN = person("ann"), person("bob", Role.DPO), person("dan", Role.DPO)


@dataclass(slots=True, kw_only=True)
class Stage:
    """A vault on disk with a past, copied for each crash."""

    path: Path
    recordings: dict[str, RecordingId] = field(default_factory=dict)
    audio: dict[str, bytes] = field(default_factory=dict)
    hold: Hold | None = None
    copies: int = 0

    def copy(self) -> Config:
        self.copies += 1
        target = self.path.with_name(f"copy-{self.copies}")
        shutil.copytree(self.path, target)
        return config_at(target)

    def discard(self, config: Config) -> None:
        shutil.rmtree(config.base)


@pytest.fixture
async def stage(monkeypatch) -> AsyncIterator[Stage]:
    """Two due recordings and a held one of acme, one due of beta, one not due, and a call under way."""
    monkeypatch.setattr(file, "MATERIAL_BYTES", 1 << 12)  # root versions are opened thousands of times here
    with memory_directory() as base:
        made = Stage(path=base / "stage")
        config = config_at(made.path)
        clock = ManualClock()
        await init_vault(config, trial=True, clock=clock)
        process = await start(config, clock)
        vault = process.vault
        for tenant in (ACME, BETA):
            await vault.tenants.add(
                identifier=tenant, name=tenant, controller=tenant, contact="dpo", retention=None, actor=None
            )
        calls = {
            "due-1": call("due-1"),
            "due-2": call("due-2"),
            "held": call("held"),
            "other": call("other", tenant=BETA),
            "later": call("later", days=30),
        }
        async with storing(vault):
            for name, each in calls.items():
                made.audio[name] = SOUND(6_000)
                made.recordings[name] = await record(vault, each, made.audio[name])
        made.audio["live"] = SOUND(30_000)
        live = await begin(vault, call("live"), made.audio["live"][:9_000])
        made.recordings["live"] = live.recording.id
        await approvals.known(vault, ANN, BOB, DAN)
        made.hold = await vault.holds.place(hold_request(made.recordings["held"], clock=clock), actor=ANN)
        await process.abandon()
        yield made


Flow = Callable[[Process, dict[str, object]], Awaitable[None]]


Laws = Callable[[Vault, ManualClock, Mapping[str, object]], Awaitable[None]]


async def enumerate_crashes(stage: Stage, mode: str, *, days: float, flow: Flow, laws: Laws) -> list[str]:
    """Run `flow` whole and with a crash at writes of it, `laws` on what the next process finds; return the writes."""

    async def run(step: int | None) -> list[str]:
        config, clock = stage.copy(), ManualClock()
        clock.advance(days=days)
        process = await start(config, clock)
        process.faults.arm(step, landed=mode == "landed")
        answers: dict[str, object] = {}
        with crash_is_the_end(process.faults):
            await flow(process, answers)
        gone = {name for name, each in stage.recordings.items() if not await derivable(process.vault, each)}
        await process.abandon()
        async with open_vault(config, clock=clock, background=False) as vault:
            back = {name for name in gone if await derivable(vault, stage.recordings[name])}
            assert not back, f"{back} came back after step {step}: {process.faults.trace[-1]}"
            await assert_nothing_is_gone_without_a_certificate(vault, stage)
            await laws(vault, clock, answers)
            await audit_verifies(vault)
        stage.discard(config)
        return process.faults.trace

    writes = await run(None)
    for step in steps(len(writes), of=f"{flow.__qualname__} {mode}"):
        await run(step)
    return writes


async def derivable(vault: Vault, recording: RecordingId) -> bool:
    return vault.keyring.derivable((await vault.catalog.recording(recording)).audio)


async def assert_nothing_is_gone_without_a_certificate(vault: Vault, stage: Stage) -> None:
    """A start completes what was interrupted: nobody waits for the next sweep to learn what happened to a recording."""
    for identifier in stage.recordings.values():
        row = await vault.catalog.recording(identifier)
        certified = await vault.catalog.certificates(recording=identifier)
        assert (row.state is RecordingState.SHREDDED) == bool(certified) == (not vault.keyring.derivable(row.audio))


async def audit_verifies(vault: Vault) -> None:
    entries = await audit_entries(vault.catalog, limit=10_000)
    assert entries
    verify_chain(entries)


async def assert_playable(vault: Vault, stage: Stage, *names: str) -> None:
    for name in names:
        assert await play(vault, stage.recordings[name]) == stage.audio[name]
        assert not await vault.catalog.certificates(recording=stage.recordings[name]), f"{name} lives and is certified"


async def assert_shredded(vault: Vault, stage: Stage, *names: str) -> None:
    """Gone for good, with one provisional and one final certificate that a stranger can verify."""
    key = VerifyKey.from_pem(vault.certificates.issuer_public_pem.encode())
    done = [
        (entry.event.target, entry.event.tenant)
        for entry in await audit_entries(vault.catalog, limit=10_000)
        if entry.event.event == "shred.done"
    ]
    for name in names:
        identifier = stage.recordings[name]
        row = await vault.catalog.recording(identifier)
        assert row.state is RecordingState.SHREDDED
        assert not vault.keyring.derivable(row.audio)
        with pytest.raises(Shredded):
            await play(vault, identifier)
        certificates = await vault.catalog.certificates(recording=identifier)
        assert sorted(each.status for each in certificates) == [CertificateStatus.FINAL, CertificateStatus.PROVISIONAL]
        final, provisional = sorted(certificates, key=lambda each: each.status)
        assert final.supersedes == provisional.id
        assert row.certificate_id == final.id
        for text in await vault.certificates.texts([final, provisional]):
            verified = verify_certificate(text, key)
            assert verified.certificate.recording.id == identifier
            assert verified.batch is not None
        assert provisional.place is not None
        prefix = recording_prefix(row.tenant, row.audio.cohort.period, identifier)
        assert [info.name async for info in vault.store.list(prefix)] == []
        assert done.count((provisional.place.batch, row.tenant)) == 1


async def sweep(vault: Vault, clock: ManualClock) -> None:
    await vault.sweeper.sweep(trigger="expiry", actor=None)
    await leases_run_out(vault, clock)
    report = await vault.sweeper.sweep(trigger="expiry", actor=None)
    assert not report.waiting_for_deletion
    assert not await vault.catalog.unfinished_shreds()
