"""Whatever state a vault is in: dry run, sweep, erasures and the answers to "why" say what the rule says."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from tests.helpers.catalogs import becomes
from tests.helpers.crashing import (
    ACME,
    BETA,
    ManualClock,
    call,
    config_at,
    hold_request,
    memory_directory,
    person,
    record,
)
from tests.helpers.soak import examples
from vault.ids import RecordingId, TenantId, new_id
from vault.model import Hold, HoldState, Part, Role, Tenant
from vault.ports.erasures import Erasure, ErasureBasis, ErasureId, ErasureOutcome, ErasureState
from vault.ports.policies import PolicyState
from vault.retention.decide import PARTS, Due, Gone, Held, NotDue, decide_parts
from vault.retention.periods import Period
from vault.services.deletion.sweep import SweepLine
from vault.services.recordings.dossiers import Dossiers, place_of
from vault.services.vault import Vault
from vault.wiring import init_vault, open_vault

TENANTS = (ACME, BETA)
ASKED, APPROVED = "tok_" + "a" * 32, "tok_" + "b" * 32

_HOLD = st.sampled_from(["none", "none", "active", "requested", "placing", "grace", "over"])
_RECORDING = st.fixed_dictionaries(
    {
        "tenant": st.sampled_from(TENANTS),
        "days": st.integers(1, 60),
        "hold": _HOLD,
        "erasing": st.sampled_from([False, False, True]),
    }
)
_TENANT = st.fixed_dictionaries(
    {
        "metadata_days": st.sampled_from([None, 1, 20]),
        "left_days_ago": st.sampled_from([None, 5, 40]),
        "changed_days": st.sampled_from([None, None, 3, 100]),
    }
)
_WORLD = st.fixed_dictionaries(
    {
        "recordings": st.lists(_RECORDING, min_size=3, max_size=7),
        "tenants": st.tuples(_TENANT, _TENANT),
        "now_days": st.integers(0, 70),
    }
)


class World:
    """A vault in a state that people and time could have brought it into."""

    def __init__(self, vault: Vault, clock: ManualClock) -> None:
        self.vault, self.clock = vault, clock
        self.dossiers = Dossiers(catalog=vault.catalog, keyring=vault.keyring, export_window=Period(timedelta(days=30)))

    async def build(self, wanted: dict[str, Any]) -> list[RecordingId]:
        vault, clock = self.vault, self.clock
        for tenant in TENANTS:
            await vault.tenants.add(
                identifier=tenant, name=tenant, controller=tenant, contact="dpo", retention=None, actor=None
            )
        made = [
            await record(vault, call(f"call-{number}", tenant=each["tenant"], days=each["days"]), bytes(160))
            for number, each in enumerate(wanted["recordings"])
        ]
        now = clock.now() + timedelta(days=wanted["now_days"], hours=1)
        for recording, each in zip(made, wanted["recordings"], strict=True):
            await self.hold(recording, each["tenant"], each["hold"], now)
            if each["erasing"]:
                await self.erase(recording, each["tenant"])
        for tenant, each in zip(TENANTS, wanted["tenants"], strict=True):
            await self.change(tenant, each, now)
        clock.at = now
        return made

    async def hold(self, recording: RecordingId, tenant: TenantId, state: str, now: Any) -> None:
        if state == "none":
            return
        catalog = self.vault.catalog
        request = hold_request(recording, clock=self.clock, tenant=tenant)
        placed = await self.vault.holds.place(request, actor=person("ann", tenant=tenant))
        changes: dict[str, dict[str, Any]] = {
            "active": {},
            "placing": {"state": HoldState.PLACING},
            "requested": {"state": HoldState.RELEASE_REQUESTED},
            "grace": {"state": HoldState.RELEASED, "released_at": now, "grace_until": now + timedelta(days=1)},
            "over": {"state": HoldState.RELEASED, "released_at": now, "grace_until": now},
        }
        after: Hold = dataclasses.replace(placed, **changes[state])
        await catalog.revise_hold(placed.id, becomes(after))

    async def erase(self, recording: RecordingId, tenant: TenantId) -> None:
        now = self.clock.now()
        await self.vault.catalog.add_erasure(
            Erasure(
                id=ErasureId(new_id("era", at=now, entropy=os.urandom)),
                tenant=tenant,
                basis=ErasureBasis.ART17,
                case_reference="DSR-7",
                queue=True,
                state=ErasureState.APPROVED,
                requested_by=ASKED,
                requested_at=now,
                recordings={recording: ErasureOutcome.PENDING},
                decided_by=APPROVED,
                decided_at=now,
            )
        )

    async def change(self, tenant: TenantId, wanted: dict[str, Any], now: Any) -> None:
        before = await self.vault.catalog.tenant(tenant)
        after: Tenant = before
        if wanted["metadata_days"] is not None:
            after = dataclasses.replace(after, metadata_retention=f"{wanted['metadata_days']}d")
        if wanted["left_days_ago"] is not None:
            end = now - timedelta(days=wanted["left_days_ago"])
            after = dataclasses.replace(
                after,
                contract_end=end,
                offboard_requested_by=ASKED,
                offboard_approved_by=APPROVED,
                offboard_approved_at=end,
            )
        if after != before:
            await self.vault.catalog.revise_tenant(tenant, becomes(after))
        if wanted["changed_days"] is not None:
            await self.keep(tenant, wanted["changed_days"], now)

    async def keep(self, tenant: TenantId, days: int, now: Any) -> None:
        """Have two people change the audio that exists; the notice has ended, and what is longer is pinned."""
        policies = self.vault.policies
        asked = await policies.request_audio(
            tenant, retention=Period(timedelta(days=days)), actor=person("dan", Role.DPO)
        )
        approved = dataclasses.replace(
            asked, state=PolicyState.APPROVED, decided_by=APPROVED, decided_at=asked.requested_at, takes_effect_at=now
        )
        await self.vault.catalog.revise_policy_request(asked.id, becomes(approved))
        await policies.apply(now)

    async def decisions(self, recording: RecordingId) -> dict[Part, Any]:
        facts = await self.dossiers.facts(await self.vault.catalog.recording(recording))
        return dict(decide_parts(facts, now=self.dossiers.now(self.clock.now())))

    async def why(self, recording: RecordingId) -> dict[str, str]:
        row = await self.vault.catalog.recording(recording)
        actor = person("olga", Role.AUDITOR, row.tenant)
        found = await self.vault.recordings.why(row, actor=actor)
        return {line.rule: line.effect for line in found.rules}

    async def keys(self, recording: RecordingId) -> dict[Part, bool]:
        row = await self.vault.catalog.recording(recording)
        return {part: self.vault.keyring.derivable(place_of(row, part)) for part in PARTS}


async def paged(vault: Vault) -> Sequence[SweepLine]:
    """Return what a dry run tells in pages of one."""
    page = await vault.sweeper.preview(limit=1)
    lines = [*page.lines]
    while page.after is not None:
        page = await vault.sweeper.preview(after=page.after, limit=1)
        assert sum(each.recordings for each in page.counts) == len(page.lines) == 1
        lines += page.lines
    return lines


async def live_through(wanted: dict[str, Any]) -> None:
    with memory_directory() as base:
        clock = ManualClock()
        config = config_at(base)
        await init_vault(config, clock=clock)
        async with open_vault(config, clock=clock) as vault:
            world = World(vault, clock)
            made = await world.build(wanted)
            before = {each: await world.decisions(each) for each in made}
            said = {each: await world.why(each) for each in made}
            dry = await vault.sweeper.preview()
            assert await paged(vault) == dry.lines
            assert {(each.tenant, each.action, each.reason): each.recordings for each in dry.counts} == Counter(
                (line.tenant, line.action, line.reason) for line in dry.lines
            )
            # Of a page that is not all, whole cohorts are counted without their rows.
            assert (await vault.sweeper.preview(limit=1)).counts == dry.counts
            swept = await vault.sweeper.sweep(trigger="expiry", actor=None)
            lines = {line.recording: line.action for line in dry.lines}
            for recording, decisions in before.items():
                left = await world.keys(recording)
                for part, decision in decisions.items():
                    assert left[part] == isinstance(decision, Held | NotDue), (part, decision)
                    rule = "decision" if part is Part.AUDIO else "metadata"
                    assert said[recording][rule] == ("keeps" if isinstance(decision, Held | NotDue) else "deletes")
                if any(isinstance(decision, Due) for decision in decisions.values()):
                    assert lines[recording] == "shred"
                else:
                    assert lines.get(recording, "keep") == "keep"
                after = await world.decisions(recording)
                assert {part for part in PARTS if isinstance(after[part], Gone)} == {
                    part for part in PARTS if not left[part]
                }
            going = sum(any(isinstance(each, Due) for each in parts.values()) for parts in before.values())
            assert (dry.shredded, swept.shredded) == (going, going)
            assert dry.kept == swept.kept
            again = await vault.sweeper.sweep(trigger="expiry", actor=None)
            assert (again.shredded, again.receipt) == (0, None), "the rule and the plan differ for ever"


@settings(max_examples=examples(15), deadline=None, phases=[Phase.explicit, Phase.generate])
@given(wanted=_WORLD)
@example(  # what holds keep of a tenant that left, whose calls another decision was to keep longer
    wanted={
        "now_days": 55,
        "tenants": (
            {"changed_days": 100, "left_days_ago": 40, "metadata_days": None},
            {"changed_days": None, "left_days_ago": None, "metadata_days": None},
        ),
        "recordings": [
            {"tenant": "acme", "days": 5, "erasing": True, "hold": "placing"},
            {"tenant": "acme", "days": 40, "erasing": True, "hold": "grace"},
            {"tenant": "acme", "days": 26, "erasing": False, "hold": "requested"},
            {"tenant": "acme", "days": 26, "erasing": False, "hold": "none"},
        ],
    }
)
@example(  # of one cohort that goes: what is looked at by itself, and what is only counted
    wanted={
        "now_days": 8,
        "tenants": ({"changed_days": None, "left_days_ago": None, "metadata_days": None},) * 2,
        "recordings": [
            {"tenant": "acme", "days": 5, "erasing": erasing, "hold": hold}
            for erasing, hold in (
                *((False, hold) for hold in ("none", "none", "active", "placing", "requested", "grace", "over")),
                *((True, hold) for hold in ("none", "active", "over")),
            )
        ],
    }
)
def test_sweep_dry_run_erasure_contract_and_why_do_what_the_rule_decides(wanted: dict[str, Any]) -> None:
    asyncio.run(live_through(wanted))
