"""Collects the facts that decide about recordings: about one, or about all of a tenant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from vault.ids import HoldId, RecordingId, TenantId, id_bytes
from vault.model import Cohort, Coordinate, HoldTerms, Part, Pin, Recording, Tenant
from vault.ports.erasures import Erasure, ErasureLookup, ErasureOutcome, ErasureState
from vault.ports.holds import HoldLookup
from vault.ports.keys import Keyring
from vault.ports.policies import PolicyLookup
from vault.ports.tenants import TenantLookup
from vault.retention.decide import IN_FORCE, PARTS, Clocks, Decision, Facts, Held
from vault.retention.guards import effective_now
from vault.retention.periods import Period, maybe_period
from vault.retention.policy import export_ends

_EVERY_HOLD = 10_000_000
_ERASES = frozenset({ErasureOutcome.PENDING, ErasureOutcome.ERASING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """What decides about every recording of one tenant, as it was when collected.

    `by_recording` are the holds in force in the catalog, `by_id` those and every hold whose pin is set.
    """

    clocks: Clocks
    keyring: Keyring
    by_recording: Mapping[RecordingId, Sequence[HoldTerms]]
    by_id: Mapping[HoldId, HoldTerms]
    pins: Mapping[Cohort, Sequence[Pin]]
    changes: frozenset[bytes] = frozenset()
    """The tags of pins that a change of retention set: no holds, they only keep a key longer than its cohort."""

    def facts(self, row: Recording, *, erasing_since: datetime | None = None) -> Facts:
        """Return the facts of one row of the tenant."""
        pins = frozenset(
            _hold_of(pin)
            for place in (row.audio, row.metadata)
            for pin in self._on(place)
            if pin.tag not in self.changes
        )
        holds = {hold.id: hold for hold in self.by_recording.get(row.id, ())}
        holds |= {pin: self.by_id[pin] for pin in pins if pin in self.by_id}
        return Facts(
            recording=row,
            clocks=self.clocks,
            keys=frozenset(part for part in PARTS if self.keyring.derivable(place_of(row, part))),
            holds=tuple(holds.values()),
            pins=pins,
            erasing_since=erasing_since,
        )

    def pinned(self, row: Recording, part: Part, decision: Decision) -> bool:
        """Tell whether the keyring itself keeps the part, by a pin of one of the holds that decided."""
        holds = decision.holds if isinstance(decision, Held) else ()
        return any(pin.tag in self.changes or _hold_of(pin) in holds for pin in self._on(place_of(row, part)))

    def _on(self, place: Coordinate) -> Iterable[Pin]:
        return (pin for pin in self.pins.get(place.cohort, ()) if pin.is_on(place))


class DossierRows(HoldLookup, ErasureLookup, PolicyLookup, TenantLookup, Protocol):
    """The catalog methods that facts need."""


class Dossiers:
    """Reads the facts that decide from the catalog and the keyring."""

    def __init__(self, *, catalog: DossierRows, keyring: Keyring, export_window: Period) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._export_window = export_window

    def clocks(self, tenant: Tenant) -> Clocks:
        """Return the clocks of a tenant."""
        return Clocks(
            cohort_width=self._keyring.cohort_width_seconds,
            metadata_retention=maybe_period(tenant.metadata_retention),
            metadata_before=tuple((through, maybe_period(kept)) for through, kept in tenant.metadata_before),
            metadata_changed=tenant.metadata_changed,
            retention_changed=tenant.retention_changed,
            contract_over=export_ends(tenant, self._export_window),
            contract_approved=tenant.offboard_approved_at,
        )

    def now(self, clock: datetime) -> datetime:
        """Return the instant to decide for: never before the last sweep, if the clock stepped back."""
        return effective_now(clock, self._keyring.last_sweep_at)

    async def of(self, tenant: Tenant) -> Dossier:
        """Collect what decides about everything of a tenant."""
        pins = _by_cohort(self._keyring.pins(tenant.id))
        holds = await self._catalog.holds(tenant=tenant.id, states=[*IN_FORCE], limit=_EVERY_HOLD)
        by_recording: defaultdict[RecordingId, list[HoldTerms]] = defaultdict(list)
        for hold in holds:
            for recording in hold.recordings:
                by_recording[recording].append(hold)
        by_id: dict[HoldId, HoldTerms] = {hold.id: hold for hold in holds}
        by_id |= await self._known({_hold_of(pin) for each in pins.values() for pin in each} - by_id.keys())
        return Dossier(
            clocks=self.clocks(tenant),
            keyring=self._keyring,
            by_recording=by_recording,
            by_id=by_id,
            pins=pins,
            changes=await self.changes(tenant.id),
        )

    async def changes(self, tenant: TenantId) -> frozenset[bytes]:
        """Return the tags of the pins that the tenant's changes of retention set."""
        return frozenset(
            id_bytes(each.id) for each in await self._catalog.policy_requests(tenant=tenant) if each.retention
        )

    async def _known(self, identifiers: Iterable[HoldId]) -> Mapping[HoldId, HoldTerms]:
        """Return the terms of these; where the catalog is older than a pin, the pin keeps all the same."""
        return await self._catalog.terms_of(sorted(identifiers))

    async def facts(self, row: Recording) -> Facts:
        """Return the facts of one recording, with every hold there ever was on it."""
        tenant = await self._catalog.tenant(row.tenant)
        pins = [pin for pin in self._keyring.pins(row.tenant) if pin.is_on(row.audio) or pin.is_on(row.metadata)]
        holds = {hold.id: hold for hold in await self._catalog.holds_on(row.id)}
        by_id = {**holds, **await self._known({_hold_of(pin) for pin in pins} - holds.keys())}
        dossier = Dossier(
            clocks=self.clocks(tenant),
            keyring=self._keyring,
            by_recording={row.id: tuple(holds.values())},
            by_id=by_id,
            pins=_by_cohort(pins),
            changes=await self.changes(row.tenant),
        )
        return dossier.facts(row, erasing_since=erasing_since(await self._catalog.erasures_on(row.id), row.id))

    async def tenant(self, identifier: TenantId) -> Dossier:
        """Collect what decides about everything of the tenant of this id."""
        return await self.of(await self._catalog.tenant(identifier))


def erasing_since(erasures: Iterable[Erasure], recording: RecordingId) -> datetime | None:
    """Return since when two people have decided to erase the recording, by the erasures that name it."""
    decided = [
        each.decided_at
        for each in erasures
        if each.state is ErasureState.APPROVED and each.recordings[recording] in _ERASES and each.decided_at is not None
    ]
    return min(decided, default=None)


def _by_cohort(pins: Iterable[Pin]) -> Mapping[Cohort, Sequence[Pin]]:
    found: defaultdict[Cohort, list[Pin]] = defaultdict(list)
    for pin in pins:
        found[pin.cohort].append(pin)
    return found


def place_of(row: Recording, part: Part) -> Coordinate:
    """Return where the part's key is."""
    return row.metadata if part is Part.METADATA else row.audio


def _hold_of(pin: Pin) -> HoldId:
    return HoldId(f"hold_{pin.tag.hex()}")
