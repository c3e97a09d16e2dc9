"""kill -9 at every kind of write of an erasure: the next start carries out what two people agreed on."""

import asyncio
import signal
import sys

from tests.faults.crashing import ManualClock, start
from tests.faults.test_service_crash import (
    ANN,
    BOB,
    assert_nothing_is_gone_without_a_certificate,
    assert_playable,
    assert_shredded,
    audit_verifies,
    erasure_of,
    stage,
    sweep,
)
from vault.ports.erasures import ErasureState
from vault.wiring import open_vault

__all__ = ["stage"]

WRITES = [
    *("catalog.save_erasure", "catalog.intend_shred", "catalog.record_receipt", "catalog.certify"),
    *("catalog.finish_shred", "keyring.write_durable", "keyring.replace", "keyring.unlink"),
    *("provider.replace", "provider.overwrite", "provider.unlink", "objects.delete"),
]


async def test_a_process_killed_in_an_erasure_is_followed_by_one_that_finishes_it(stage):
    died: dict[str, int] = {}
    for write in WRITES:
        for mode in ("lost", "landed"):
            config = stage.copy()
            asking = await start(config, ManualClock())
            asked = await asking.vault.erasures.request(erasure_of(stage, "later", "due-2"), actor=ANN)
            await asking.abandon()
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.faults.erasing", str(config.base), asked.erasure.id, write, mode)
            )
            died[f"{write} {mode}"] = await child.wait()
            async with open_vault(config, clock=ManualClock(), background=False) as vault:
                await assert_nothing_is_gone_without_a_certificate(vault, stage)
                erasure = await vault.catalog.erasure(asked.erasure.id)
                assert erasure.state in (ErasureState.REQUESTED, ErasureState.DONE)
                if erasure.state is ErasureState.REQUESTED:
                    assert (write, mode) == ("catalog.save_erasure", "lost")
                    await assert_playable(vault, stage, "later", "due-2")
                    await vault.erasures.approve(erasure.id, actor=BOB)
                await sweep(vault)
                await assert_shredded(vault, stage, "later", "due-2")
                await assert_playable(vault, stage, "due-1", "held", "other")
                await audit_verifies(vault)
            stage.discard(config)
    assert set(died.values()) == {-signal.SIGKILL}, died


async def test_the_killer_kills_only_at_the_write_it_was_given(stage):
    config = stage.copy()
    asking = await start(config, ManualClock())
    asked = await asking.vault.erasures.request(erasure_of(stage, "later"), actor=ANN)
    await asking.abandon()
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.erasing", str(config.base), asked.erasure.id, "nowhere", "lost")
    )
    assert await child.wait() == 3
