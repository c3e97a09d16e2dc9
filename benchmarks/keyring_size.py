"""How large the keyring gets, and how long it takes to load, to change and to shred, by how many recordings live.

`python -m benchmarks.keyring_size [--held 0.001] [--erased 0.0001]`. Recordings are simulated: what the keyring holds
of them is one tree for each tenant and day of 90 (audio) and month of 12 (metadata), a pin for each held one and a
puncture for each erased one, spread at random. Beside it: what one wrapped key for each recording would take, and how
long the disk takes to write and sync as many bytes as the keyring has.

`python -m benchmarks.keyring_size --hold 1000000` places one hold on so many recordings of a tenant instead: on
everything of each period, and on one recording of `--of 10`, chosen at random. It tells what is written again a
revision, while the hold is placed and for one recording more.
"""

import argparse
import asyncio
import os
import random
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.common import report, rss_bytes, run
from vault.config import parse_config
from vault.crypto.spans import points
from vault.ids import TenantId
from vault.keystore import engine, pages
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


def hold_of(places, count, one_of):
    """Return the pins of a hold on `count` recordings: their audio by day and their metadata by month."""
    tag, found = os.urandom(16), []
    for part in (Part.AUDIO, Part.METADATA):
        periods = [cohort for cohort in places if cohort.part is part][: DAYS if part is Part.AUDIO else DAYS // 30]
        each = count // len(periods)
        for cohort in periods:
            leaves = range(each) if one_of == 1 else random.sample(range(each * one_of), each)
            found += [Pin(cohort=cohort, first=first, last=last, tag=tag) for first, last in points(leaves)]
    return found


async def measure_hold(count, one_of):
    """Place a hold, then one on a single recording; count the bytes that each revision seals for a replica."""
    written = []

    def counting(*arguments, **keywords):
        stored, blobs = pages.stage(*arguments, **keywords)
        written.append(sum(map(len, blobs.values())))
        return stored, blobs

    engine.stage = counting
    with tempfile.TemporaryDirectory(prefix="callvault-bench-") as directory:
        document = {"journal": {"disk_reserve": "64MiB"}, "sweep": {"enabled": False}, "keyring": {"precreate_days": 0}}
        config = parse_config(document, base=Path(directory))
        await init_vault(config, trial=True, clock=SystemClock())
        async with open_vault(config, background=False) as vault:
            places = cohorts(TenantId("tenant-0"), int(time.time() // 86_400), vault.keyring.generation)
            before, pins = rss_bytes(os.getpid()), hold_of(places, count, one_of)
            more = Pin(cohort=places[40], first=1 << 31, last=1 << 31, tag=b"o" * 16)
            async with vault.keyring.writer() as writer:
                await writer.add_cohorts(places)
                written.clear()
                with Timed() as placing:
                    await writer.pin(pins)
                placed, runs = [*written], len(pins)
                del pins
                written.clear()
                with Timed() as one:
                    await writer.pin([more])
            after = rss_bytes(os.getpid())
            [rewritten] = written
        size = await asyncio.to_thread(bytes_of, config.replica_paths[0])
        with Timed() as load:
            async with open_vault(config, background=False):
                pass
    report(
        "keyring_hold",
        recordings=count,
        one_of=one_of,
        pins=runs,
        keyring_bytes=size,
        place_seconds=placing.seconds,
        revisions=len(placed),
        most_bytes_a_revision=max(placed),
        one_more_seconds=one.seconds,
        one_more_bytes=rewritten,
        grown_bytes=after - before,
        open_seconds=load.seconds,
    )


async def main(arguments):
    random.seed(arguments.seed)
    if arguments.hold:
        for one_of in (1, arguments.of):
            await measure_hold(arguments.hold, one_of)
        return
    for recordings, tenants in CASES:
        if recordings <= arguments.up_to:
            await measure(recordings, tenants, arguments)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--held", type=float, default=0.001, help="share of recordings under a hold")
    parser.add_argument("--erased", type=float, default=0.0001, help="share of recordings erased one by one")
    parser.add_argument("--hold", type=int, help="place one hold on so many recordings instead")
    parser.add_argument("--of", type=int, default=10, help="of how many recordings one is under that hold")
    parser.add_argument("--up-to", type=int, default=100_000_000)
    parser.add_argument("--seed", type=int, default=7)
    run(main(parser.parse_args()))
