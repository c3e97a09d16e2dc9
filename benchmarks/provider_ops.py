"""Root-key provider operations a day: what a key service would be asked, and billed for.

`python -m benchmarks.provider_ops [--sweeps 24] [--erasures 50] [--holds 20] [--restarts 2] [--calls 40]`. A vault
lives through a day on a clock that is moved: calls are recorded, holds placed, recordings erased in an epoch each,
sweeps run of which one has something due, and the process starts anew. Every call of the provider is counted by the
vault's own metric. `floor` is the least any design could ask that makes each erasure and each sweep an epoch of its
own, never destroys before it has read back, and keeps no key across a restart.
"""

import argparse
import dataclasses
import os
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry

from benchmarks.common import report, run
from vault.config import parse_config
from vault.ids import TenantId, TokenId
from vault.model import CallFacts, Codec, Container, HoldKind, Media, Principal, Role, ShredPlan
from vault.retention.periods import Period
from vault.services.holds.holds import HoldRequest
from vault.services.ingest.sessions import CallStart
from vault.wiring import SystemClock, init_vault, open_vault

TENANT = TenantId("bench")
OPERATOR = Principal(token_id=TokenId("tok_" + "0" * 32), name="bench", role=Role.OPERATOR, tenant=None)
PERSON = dataclasses.replace(OPERATOR, role=Role.COMPLIANCE, tenant=TENANT)
METRIC = "callvault_root_provider_seconds_count"
PER_SHRED = ("new_version", "wrap", "unwrap", "destroy")
PER_START = ("unwrap", "versions")


class MovedClock(SystemClock):
    """The machine's clock, moved ahead as the day goes on."""

    ahead = timedelta(0)

    def now(self):
        return datetime.now(UTC) + self.ahead


async def record(vault, number, days):
    call = CallStart(
        tenant=TENANT,
        call_key=f"call-{number}",
        media=Media(container=Container.RAW, codec=Codec.PCMU, rate=8000, channels=1),
        facts=CallFacts(),
        started_at=None,
        retention=Period(timedelta(days=days)),
    )
    session = await vault.ingest.start(call, actor=dataclasses.replace(OPERATOR, tenant=TENANT))
    await vault.ingest.write(session, os.urandom(1600))
    await vault.ingest.finish(session)
    await session.done.wait()
    return session.recording


async def hold(vault, recording, clock):
    request = HoldRequest(
        tenant=TENANT,
        kind=HoldKind.LEGAL,
        matter="BENCH",
        reason="bench",
        authority="bench",
        owner="bench",
        review_at=clock.now() + timedelta(days=30),
        recordings=(recording.id,),
    )
    await vault.holds.place(request, actor=PERSON)


async def erase(vault, recording, clock):
    plan = ShredPlan(intent_id="erasure", at=clock.now(), leaves=frozenset({recording.audio}))
    async with vault.keyring.writer() as writer:
        await writer.shred(plan)


def counted(registry):
    """Calls by operation and outcome."""
    found = Counter()
    for family in registry.collect():
        for sample in family.samples:
            if sample.name == METRIC and sample.value:
                found[f"{sample.labels['op']} {sample.labels['outcome']}"] += int(sample.value)
    return found


async def before(config, clock, arguments):
    """The day before: what will be held, erased and due is recorded."""
    async with open_vault(config, clock=clock) as vault:
        await vault.tenants.add(
            identifier=TENANT,
            name="Bench",
            controller="Bench",
            contact="bench@example.org",
            retention=Period(timedelta(days=1)),
            actor=OPERATOR,
        )
        wanted = arguments.erasures + arguments.holds
        kept = [await record(vault, number, 30) for number in range(wanted)]
        await record(vault, wanted, 1)
    return kept


async def day(config, clock, arguments, kept):
    """Live through a day in as many processes as there are restarts and one; return the counts and the epochs."""
    counts, epochs = Counter(), set()
    events = ["sweep"] * arguments.sweeps + ["call"] * arguments.calls
    events += [("erase", each) for each in kept[: arguments.erasures]]
    events += [("hold", each) for each in kept[arguments.erasures :]]
    shares = [events[start :: arguments.restarts + 1] for start in range(arguments.restarts + 1)]
    number = 0
    for share in shares:
        registry = CollectorRegistry()
        async with open_vault(config, clock=clock, registry=registry) as vault:
            for event in share:
                clock.ahead += timedelta(days=1) / len(events)
                epochs.add(vault.keyring.epoch)
                match event:
                    case "sweep":
                        await vault.sweeper.sweep(trigger="expiry", actor=OPERATOR)
                    case "call":
                        number += 1
                        await record(vault, f"day-{number}", 30)
                    case ("erase", recording):
                        await erase(vault, recording, clock)
                    case ("hold", recording):
                        await hold(vault, recording, clock)
            epochs.add(vault.keyring.epoch)
        counts += counted(registry)
    return counts, len(epochs) - 1


async def main(arguments):
    clock = MovedClock()
    with tempfile.TemporaryDirectory(prefix="callvault-bench-") as directory:
        document = {
            "journal": {"disk_reserve": "64MiB"},
            "sweep": {"enabled": False, "max_jump": "30d", "max_share": 1.0},
        }
        config = parse_config(document, base=Path(directory))
        await init_vault(config, trial=True, clock=clock)
        kept = await before(config, clock, arguments)
        clock.ahead = timedelta(days=2)
        counts, shreds = await day(config, clock, arguments, kept)
    load = {name: getattr(arguments, name) for name in ("sweeps", "erasures", "holds", "restarts", "calls")}
    starts = arguments.restarts + 1
    report(
        "provider_ops",
        load_a_day=load,
        epochs=shreds,
        operations=dict(sorted(counts.items())),
        operations_a_day=counts.total(),
        floor={"operations_a_day": shreds * len(PER_SHRED) + starts * len(PER_START)},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=24)
    parser.add_argument("--erasures", type=int, default=50)
    parser.add_argument("--holds", type=int, default=20)
    parser.add_argument("--restarts", type=int, default=2)
    parser.add_argument("--calls", type=int, default=40)
    run(main(parser.parse_args()))
