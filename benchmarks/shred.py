"""One sweep over N expired recordings: seconds until all are unreadable, and certificates a second.

`python -m benchmarks.shred [--recordings 100000 1000000]`. The rows are written straight into the catalog; the keyring,
sweep and certificates are the real ones. Objects are none, so what is timed is keys and certificates.
"""

import argparse
import asyncio
import dataclasses
import os
import sqlite3
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.common import report, run
from vault.config import parse_config
from vault.model import CallFacts, Codec, Container, Media, Principal, Role, TenantId, TokenId
from vault.services.ingest import CallStart
from vault.wiring import SystemClock, init_vault, open_vault

CERTIFY_UP_TO = 10_000
"""Certificates take as long each whatever their number: the larger runs stop once every key is gone."""
TENANT = TenantId("bench")
OPERATOR = Principal(token_id=TokenId("tok_" + "0" * 32), name="bench", role=Role.OPERATOR, tenant=None)


class MovedClock(SystemClock):
    """The machine's clock, moved ahead once everything is in place."""

    ahead = timedelta(0)

    def now(self):
        return datetime.now(UTC) + self.ahead


async def one_recording(vault, number):
    call = CallStart(
        tenant=TENANT,
        call_key=f"call-{number}",
        media=Media(container=Container.RAW, codec=Codec.PCMU, rate=8000, channels=1),
        facts=CallFacts(),
        started_at=None,
        retention=timedelta(days=1),
    )
    session = await vault.ingest.start(call, actor=dataclasses.replace(OPERATOR, tenant=TENANT))
    await vault.ingest.write(session, os.urandom(1600))
    await vault.ingest.finish(session)
    await session.done.wait()
    return session.recording


def multiply(path, copies):
    """Write `copies` further rows like the first, each with an id, call key and leaf of its own."""
    with sqlite3.connect(path) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(recordings)")]
        first = dict(zip(columns, database.execute("SELECT * FROM recordings LIMIT 1").fetchone(), strict=True))
        base = first["id"]

        def rows():
            for number in range(1, copies + 1):
                key = (
                    (int.from_bytes(base) + number).to_bytes(len(base))
                    if isinstance(base, bytes)
                    else base[:-8] + f"{number:08x}"
                )
                changed = {"id": key, "call_token": f"copy-{number}", "audio_leaf": number, "metadata_leaf": number}
                yield tuple({**first, **changed}[name] for name in columns)

        marks = ",".join("?" * len(columns))
        database.executemany(f"INSERT INTO recordings ({','.join(columns)}) VALUES ({marks})", rows())


async def measure(recordings):
    clock = MovedClock()
    with tempfile.TemporaryDirectory(prefix="callvault-bench-") as directory:
        document = {
            "journal": {"disk_reserve": "64MiB"},
            "sweep": {"enabled": False, "max_jump": "30d", "max_share": 1.0},
        }
        config = parse_config(document, base=Path(directory))
        await init_vault(config, clock=clock)
        async with open_vault(config, clock=clock) as vault:
            await vault.tenants.add(
                identifier=TENANT,
                name="Bench",
                controller="Bench",
                contact="bench@example.org",
                retention=timedelta(days=1),
                actor=OPERATOR,
            )
            sample = await one_recording(vault, 0)
        await asyncio.to_thread(multiply, config.catalog_path, recordings - 1)
        clock.ahead = timedelta(days=3)
        async with open_vault(config, clock=clock, background=False) as vault:
            assert vault.keyring.derivable(sample.audio)
            began = time.perf_counter()
            sweeping = asyncio.create_task(vault.sweeper.sweep(trigger="expiry", actor=OPERATOR))
            while not await vault.catalog.sweep_floor() or vault.keyring.derivable(sample.audio):
                await asyncio.sleep(0.005)
            while not any(shred.receipt for shred in await vault.catalog.unfinished_shreds()) and not sweeping.done():
                await asyncio.sleep(0.005)
            unreadable = time.perf_counter() - began
            figures = {"recordings": recordings, "seconds_until_unreadable": round(unreadable, 3)}
            if recordings <= CERTIFY_UP_TO:
                done = await sweeping
                assert done.shredded == recordings, done
                figures["recordings_certified_finally_per_second"] = round(recordings / (time.perf_counter() - began))
            else:
                sweeping.cancel()
                await asyncio.gather(sweeping, return_exceptions=True)
        report("shred", **figures)


async def main(arguments):
    for recordings in arguments.recordings:
        await measure(recordings)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, nargs="+", default=[5_000, 100_000, 1_000_000])
    run(main(parser.parse_args()))
