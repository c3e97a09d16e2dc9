"""The acts that are killed at each of their writes; each is complete in itself, as a process would be told to do it."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.helpers import approvals
from tests.helpers.crashing import ACME, Process, hold_request, leases_run_out, person
from vault.model import Role
from vault.ports.erasures import ErasureBasis
from vault.protocol.webhook import FlagCategory
from vault.services.deletion.erasures import ErasureRequest

ANN, BOB = person("ann"), person("bob", Role.DPO)
CALLER = "+442079460123"


async def named(process: Process, *keys: str) -> list:
    found = [await process.vault.search.call(ACME, key) for key in keys]
    return [row.id for row in found if row is not None]


async def sweep(process: Process) -> None:
    await process.vault.sweeper.sweep(trigger="expiry", actor=None)
    await leases_run_out(process.vault, process.clock)
    await process.vault.sweeper.sweep(trigger="expiry", actor=None)


async def hold(process: Process) -> None:
    recordings = await named(process, "due-1", "later")
    await process.vault.holds.place(hold_request(*recordings, clock=process.clock), actor=ANN)
    async with asyncio.TaskGroup() as group:
        working = group.create_task(process.vault.labels.run())
        await process.vault.labels.settled(within=10)
        working.cancel()


async def flag(process: Process) -> None:
    (later,) = await named(process, "later")
    row = await process.vault.catalog.recording(later)
    await process.vault.flags.flag(row, category=FlagCategory.DISTRESS, actor=ANN)


async def release(process: Process) -> None:
    (held,) = [each for each in await process.vault.catalog.holds(tenant=ACME) if each.state.value != "released"]
    if held.state.value == "active":
        await process.vault.holds.request_release(held.id, reason="settled", actor=ANN)
    await approvals.known(process.vault, ANN)
    await approvals.approve_release(process.vault, held.id, actor=BOB)


async def rotate(process: Process) -> None:
    await process.vault.keys.rotate(actor=ANN)


async def erase(process: Process) -> None:
    """Two erasures, each by two people: of one recording by name, then of what is left of a number."""
    (later,) = await named(process, "later")
    for wanted in ({"recordings": (later,)}, {"caller": CALLER}):
        await approved(process, **wanted)


async def approved(process: Process, **wanted: Any) -> None:
    request = ErasureRequest(tenant=ACME, basis=ErasureBasis.ART17, case_reference="DSR-17", **wanted)
    asked = await process.vault.erasures.request(request, actor=ANN)
    await approvals.known(process.vault, ANN)
    await approvals.approve_erasure(process.vault, asked.erasure.id, actor=BOB)
