"""The acts that are killed at each of their writes; each is complete in itself, as a process would be told to do it."""

from __future__ import annotations

from tests.faults.crashing import ACME, Process, hold_request, leases_run_out, person

ANN, BOB = person("ann"), person("bob")


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


async def release(process: Process) -> None:
    (held,) = [each for each in await process.vault.catalog.holds(tenant=ACME) if each.state.value != "released"]
    if held.state.value == "active":
        await process.vault.holds.request_release(held.id, reason="settled", actor=ANN)
    await process.vault.holds.decide_release(held.id, approve=True, actor=BOB)


async def rotate(process: Process) -> None:
    await process.vault.keys.rotate(actor=ANN)
