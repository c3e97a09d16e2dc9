"""How large the keyring gets, and how long it takes to load, to change and to shred, by how many recordings live.

`python -m benchmarks.keyring_size [--held 0.001] [--erased 0.0001]`. Recordings are simulated: what the keyring holds
of them is one tree for each tenant and day of 90 (audio) and month of 12 (metadata), a pin for each held one and a
puncture for each erased one, spread at random. Beside it: what one wrapped key for each recording would take, and how
long the disk takes to write and sync as many bytes as the keyring has.
"""

import argparse
import asyncio
import os
import random
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.common import report, run
from vault.config import parse_config
from vault.ids import TenantId
from vault.model import Cohort, Coordinate, Part, Pin, ShredPlan
from vault.retention.policy import metadata_period
from vault.wiring import SystemClock, init_vault, open_vault

CASES = ((10_000, 1), (1_000_000, 10), (100_000_000, 100))
DAYS, MONTHS = 90, 12
WRAPPED_KEY_BYTES = 60
"""A nonce, 32 bytes and a tag."""


class Timed:
    """Seconds of a block."""

    def __enter__(self):
        self.began = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = round(time.perf_counter() - self.began, 3)


def cohorts(tenant, today, generation):
    audio = [Cohort(tenant=tenant, part=Part.AUDIO, period=today + day, generation=generation) for day in range(DAYS)]
    month = metadata_period(datetime.now(UTC)) - MONTHS + 1
    months = range(month, month + MONTHS)
    return audio + [
        Cohort(tenant=tenant, part=Part.METADATA, period=period, generation=generation) for period in months
    ]


def some(count, places, leaves):
    """Choose `count` coordinates at random."""
    return {Coordinate(cohort=random.choice(places), leaf=random.randrange(leaves)) for _ in range(count)}


async def fill(keyring, recordings, tenants, rates):
    today = int(time.time() // 86_400)
    names = [TenantId(f"tenant-{number}") for number in range(tenants)]
    made = [cohort for name in names for cohort in cohorts(name, today, keyring.generation)]
    audio = [cohort for cohort in made if cohort.part is Part.AUDIO]
    leaves = max(recordings // (tenants * DAYS), 1)
    held = some(round(recordings * rates.held), audio, leaves)
    erased = some(round(recordings * rates.erased), audio, leaves) - held
    async with keyring.writer() as writer:
        await writer.add_cohorts(made)
        await writer.pin([Pin(cohort=it.cohort, first=it.leaf, last=it.leaf, tag=os.urandom(16)) for it in held])
        if erased:
            await writer.shred(ShredPlan(intent_id="erasures", at=datetime.now(UTC), leaves=frozenset(erased)))
    return today, audio, leaves


async def change(keyring, today, audio, leaves):
    """Place a hold, erase one recording, and sweep a day of every tenant."""
    one, other = some(2, audio[1:2], max(leaves, 64))
    async with keyring.writer() as writer:
        with Timed() as hold:
            await writer.pin([Pin(cohort=one.cohort, first=one.leaf, last=one.leaf, tag=os.urandom(16))])
        with Timed() as erasure:
            await writer.shred(ShredPlan(intent_id="erasure", at=datetime.now(UTC), leaves=frozenset({other})))
        with Timed() as sweep:
            await writer.shred(ShredPlan(intent_id="sweep", at=datetime.now(UTC), due_through=today))
    return {"hold_seconds": hold.seconds, "erasure_seconds": erasure.seconds, "sweep_seconds": sweep.seconds}


def bytes_of(directory):
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def disk_floor(directory, size):
    with Timed() as timed, (directory / "floor").open("wb", buffering=0) as file:
        file.write(os.urandom(size))
        os.fsync(file.fileno())
    return timed.seconds


async def measure(recordings, tenants, rates):
    with tempfile.TemporaryDirectory(prefix="callvault-bench-") as directory:
        document = {"journal": {"disk_reserve": "64MiB"}, "sweep": {"enabled": False}, "keyring": {"precreate_days": 0}}
        config = parse_config(document, base=Path(directory))
        await init_vault(config, trial=True, clock=SystemClock())
        async with open_vault(config, background=False) as vault:
            today, audio, leaves = await fill(vault.keyring, recordings, tenants, rates)
        size = await asyncio.to_thread(bytes_of, config.replica_paths[0])
        with Timed() as load:
            opening = open_vault(config, background=False)
            vault = await opening.__aenter__()
        figures = await change(vault.keyring, today, audio, leaves)
        await opening.__aexit__(None, None, None)
        report(
            "keyring_size",
            recordings=recordings,
            tenants=tenants,
            held_share=rates.held,
            erased_share=rates.erased,
            keyring_bytes=size,
            bytes_per_recording=round(size / recordings, 3),
            open_seconds=load.seconds,
            **figures,
            floor={
                "bytes_of_a_wrapped_key_each": recordings * WRAPPED_KEY_BYTES,
                "seconds_to_write_and_sync_as_much": await asyncio.to_thread(disk_floor, Path(directory), size),
            },
        )


async def main(arguments):
    random.seed(arguments.seed)
    for recordings, tenants in CASES:
        if recordings <= arguments.up_to:
            await measure(recordings, tenants, arguments)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--held", type=float, default=0.001, help="share of recordings under a hold")
    parser.add_argument("--erased", type=float, default=0.0001, help="share of recordings erased one by one")
    parser.add_argument("--up-to", type=int, default=100_000_000)
    parser.add_argument("--seed", type=int, default=7)
    run(main(parser.parse_args()))
