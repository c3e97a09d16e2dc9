"""Two decisions at once end as if one had come after the other: no act that was answered is undone by another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import combinations_with_replacement
from typing import Any

import pytest

from tests.helpers.approvals import known
from tests.helpers.catalogs import becomes, erasure, hold, override, tenant
from tests.helpers.crashing import (
    _CATALOG_READS,
    ACME,
    BEGAN,
    ManualClock,
    config_at,
    memory_directory,
    person,
    record,
    start,
    storing,
)
from tests.helpers.crashing import call as call_of
from tests.helpers.trail import audit_entries
from vault.access.two_people import shown_digest
from vault.errors import Refused
from vault.ids import RecordingId
from vault.model import HoldState, Role
from vault.ports.erasures import ErasureState
from vault.ports.policies import PolicyRequest, PolicyState
from vault.retention.periods import Period
from vault.services.deletion.erasures import erasure_document
from vault.services.holds.holds import release_document
from vault.services.vault import Vault
from vault.wiring import init_vault

ANN = person("ann")
BOB, CY = (person(name, Role.DPO) for name in ("bob", "cy"))
DAN, EVE, FAY = (person(name, Role.OPERATOR, None) for name in ("dan", "eve", "fay"))

Act = Callable[[Vault], Awaitable[object]]


class Together:
    """Stands before the catalog and lets no act of a pair write before the other has read, or has ended."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._awaited = 0
        self._met = asyncio.Event()
        self._arrived: set[asyncio.Task[Any] | None] = set()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in _CATALOG_READS:
            return found

        async def write(*args: Any, **kwargs: Any) -> Any:
            self._arrived.add(asyncio.current_task())
            self._look()
            await self._met.wait()
            return await found(*args, **kwargs)

        return write

    def expect(self, acts: int) -> None:
        self._awaited, self._arrived = acts, set()
        self._met = asyncio.Event()
        self._look()

    def left(self) -> None:
        self._arrived.add(asyncio.current_task())
        self._look()

    def _look(self) -> None:
        if len(self._arrived) >= self._awaited:
            self._met.set()


@dataclass(slots=True, kw_only=True)
class Scene:
    vault: Vault
    together: Together
    recording: RecordingId

    async def outcome(self, acts: Sequence[Act], *, at_once: bool) -> tuple[str, ...]:
        """Run the acts and say for each whether it was done or how it was refused."""

        async def one(act: Act) -> str:
            try:
                await act(self.vault)
            except Refused as refusal:
                return type(refusal).__name__
            finally:
                self.together.left()
            return "done"

        self.together.expect(len(acts) if at_once else 0)
        if at_once:
            answers = await asyncio.gather(*(asyncio.create_task(one(act)) for act in acts))
        else:
            answers = [await one(act) for act in acts]
        self.together.expect(0)
        return tuple(answers)

    async def check(
        self, acts: Mapping[str, Act], reset: Callable[[], Awaitable[None]], look: Callable[[], Awaitable[object]]
    ) -> int:
        """Compare each pair at once with both of its orders: answers, rows and trail. Returns how many pairs."""

        async def run(pair: Sequence[str], *, at_once: bool) -> tuple[object, ...]:
            await reset()
            before = (await self.vault.catalog.audit_head()).seq
            answers = await self.outcome([acts[name] for name in pair], at_once=at_once)
            trail = [
                (each.event.event, each.event.actor, dict(each.event.detail))
                for each in await audit_entries(self.vault.catalog, after=before)
            ]
            return dict(enumerate(answers)), await look(), trail

        pairs = [*combinations_with_replacement(acts, 2)]
        for one, other in pairs:
            first = await run((one, other), at_once=False)
            answers, *rest = await run((other, one), at_once=False)
            second = ({0: answers[1], 1: answers[0]}, *rest)
            found = await run((one, other), at_once=True)
            assert found in (first, second), f"{one} beside {other}: {found}, neither {first} nor {second}"
        return len(pairs)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    with memory_directory() as base:
        config, clock = config_at(base / "vault"), ManualClock()
        await init_vault(config, clock=clock)
        process = await start(config, clock)
        vault = process.vault
        await vault.tenants.add(identifier=ACME, name="a", controller="a", contact="dpo", retention=None, actor=None)
        await known(vault, ANN, DAN)
        async with storing(vault):
            recording = await record(vault, call_of("one"), b"\xff" * 800)
        together = process.vault.catalog._inner = Together(process.vault.catalog._inner)
        yield Scene(vault=vault, together=together, recording=recording)
        await process.abandon()


async def test_of_two_acts_on_a_tenant_at_once_neither_is_undone(scene):
    def change(**wanted: Any) -> Act:
        return lambda vault: vault.tenants.change(ACME, **wanted, actor=DAN)

    end = BEGAN + timedelta(days=90)
    fresh = tenant(created_at=BEGAN)
    asked = replace(fresh, contract_end=end, offboard_requested_by=DAN.token_id)
    shown = (await scene.vault.tenants.view(asked)).shown

    def ask(actor, end) -> Act:
        return lambda vault: vault.tenants.request_offboarding(ACME, contract_end=end, actor=actor)

    def decide(actor, *, approve: bool) -> Act:
        return lambda vault: vault.tenants.decide_offboarding(ACME, approve=approve, shown=shown, actor=actor)

    acts = {
        "keep keys": change(keep_dtmf=True),
        "drop keys": change(keep_dtmf=False),
        "shorter": change(retention=Period(timedelta(days=30))),
        "webhook": change(safeguarding_webhook="https://alerts.acme.example/x"),
        "ask": ask(DAN, end),
        "ask otherwise": ask(CY, BEGAN),
        "approve": decide(BOB, approve=True),
        "approve too": decide(CY, approve=True),
        "reject": decide(BOB, approve=False),
    }
    for begun in (fresh, asked, replace(asked, offboard_approved_by=BOB.token_id, offboard_approved_at=BEGAN)):
        assert (
            await scene.check(
                acts,
                reset=lambda begun=begun: scene.vault.catalog.revise_tenant(ACME, becomes(begun)),
                look=lambda: scene.vault.catalog.tenant(ACME),
            )
            == 45
        )


async def test_of_two_acts_on_a_hold_at_once_neither_is_undone(scene):
    holds = scene.vault.holds
    row = await scene.vault.catalog.recording(scene.recording)
    placed = hold(row, created_at=BEGAN, review_at=BEGAN + timedelta(days=9))
    await scene.vault.catalog.add_hold(placed)
    asked = replace(
        placed, state=HoldState.RELEASE_REQUESTED, release_requested_by=ANN.token_id, release_reason="settled"
    )
    shown = shown_digest(release_document(asked))

    def review(days: int) -> Act:
        return lambda _: holds.review(placed.id, next_review=BEGAN + timedelta(days=days), note="on", actor=ANN)

    def ask(actor) -> Act:
        return lambda _: holds.request_release(placed.id, reason="settled", actor=actor)

    def decide(actor, *, approve: bool) -> Act:
        return lambda _: holds.decide_release(placed.id, approve=approve, shown=shown, actor=actor)

    acts = {
        "review": review(100),
        "review later": review(200),
        "ask": ask(ANN),
        "ask too": ask(CY),
        "approve": decide(BOB, approve=True),
        "reject": decide(CY, approve=False),
        "complete": lambda _: holds.complete(placed.id, actor=ANN),
    }
    for begun in (replace(placed, state=HoldState.PLACING), placed, asked):
        assert (
            await scene.check(
                acts,
                reset=lambda begun=begun: scene.vault.catalog.revise_hold(placed.id, becomes(begun)),
                look=lambda: scene.vault.catalog.hold(placed.id),
            )
            == 28
        )


async def test_of_two_decisions_about_an_erasure_at_once_one_stands(scene):
    catalog, erasures = scene.vault.catalog, scene.vault.erasures
    row = await catalog.recording(scene.recording)
    await catalog.add_hold(hold(row, created_at=BEGAN))
    asked = erasure(row, state=ErasureState.REQUESTED, queue=True, requested_by=ANN.token_id)
    await catalog.add_erasure(asked)
    shown = shown_digest(erasure_document(await erasures.show(asked.id)))
    acts = {
        "approve": lambda _: erasures.approve(asked.id, shown=shown, actor=BOB),
        "approve too": lambda _: erasures.approve(asked.id, shown=shown, actor=CY),
        "reject": lambda _: erasures.reject(asked.id, actor=BOB),
        "reject too": lambda _: erasures.reject(asked.id, actor=CY),
    }
    for begun in (asked, replace(asked, state=ErasureState.APPROVED, decided_by=CY.token_id)):
        assert (
            await scene.check(
                acts,
                reset=lambda begun=begun: catalog.revise_erasure(asked.id, becomes(begun)),
                look=lambda: catalog.erasure(asked.id),
            )
            == 10
        )


async def test_of_two_acts_on_a_change_of_existing_calls_at_once_one_stands(scene):
    catalog, policies = scene.vault.catalog, scene.vault.policies
    await known(scene.vault, BOB)
    fresh = await catalog.tenant(ACME)
    asked = await policies.request(ACME, retention=Period(months=6), actor=BOB)
    approved = replace(
        asked,
        state=PolicyState.APPROVED,
        decided_by=ANN.token_id,
        decided_role=ANN.role,
        decided_at=BEGAN,
        takes_effect_at=BEGAN,
    )

    def decide(actor, *, approve: bool) -> Act:
        return lambda _: policies.decide(asked.id, approve=approve, actor=actor)

    acts = {
        "approve": decide(ANN, approve=True),
        "approve too": decide(person("lea", Role.SAFEGUARDING_LEAD), approve=True),
        "withdraw": decide(BOB, approve=False),
        "reject": decide(CY, approve=False),
        "ask otherwise": lambda _: policies.request(ACME, retention=None, actor=CY),
        "ask about audio": lambda _: policies.request_audio(ACME, retention=Period(months=6), actor=CY),
        "apply": lambda vault: policies.apply(vault.clock.now()),
    }

    async def look() -> object:
        others = [each.id for each in await catalog.policy_requests() if each.is_open and each.id != asked.id]
        return await policies.show(asked.id), await catalog.tenant(ACME), len(others)

    async def reset(begun: PolicyRequest) -> None:
        for each in await catalog.policy_requests():
            after = begun if each.id == asked.id else replace(each, state=PolicyState.REJECTED)
            await catalog.revise_policy_request(each.id, becomes(after))
        await catalog.revise_tenant(ACME, becomes(fresh))

    for begun in (asked, approved):
        assert await scene.check(acts, reset=lambda begun=begun: reset(begun), look=look) == 28


async def test_of_two_acts_on_an_override_or_a_token_at_once_one_stands(scene):
    catalog, overrides = scene.vault.catalog, scene.vault.overrides
    asked = override(requested_by=DAN.token_id)
    await catalog.add_override(asked)
    approvals = {
        actor.name: lambda _, actor=actor: overrides.decide(asked, approve=True, actor=actor) for actor in (EVE, FAY)
    }
    assert (
        await scene.check(
            approvals,
            reset=lambda: catalog.revise_override(asked.id, becomes(asked)),
            look=catalog.overrides,
        )
        == 3
    )
    before = (await catalog.audit_head()).seq
    issued, _ = await scene.vault.access.issue(name="pbx", role=Role.RECORDER, tenant=ACME, actor=ANN)
    revoked = [scene.vault.access.revoke(issued.id, actor=actor) for actor in (BOB, CY)]
    await asyncio.gather(*revoked)
    trail = [each.event.event for each in await audit_entries(catalog, after=before)]
    assert (await catalog.token(issued.id)).revoked_at is not None
    assert trail == ["admin.token", "admin.token"], "it is issued once and revoked once"
