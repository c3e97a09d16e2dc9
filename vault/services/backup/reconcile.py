"""Reconciles a catalog that is older than the keyring with keyring and objects, before the vault serves requests.

The caller has moved to a new generation before, so that no leaf is reserved twice. Order: rows rebuilt from objects →
rows without a key marked shredded, and facts without a key removed → holds in force pinned again → holds rebuilt from
unknown pins → objects without a key deleted → the result logged. Every step may be repeated, so after a crash the
reconciliation runs again.

Rows and facts found without a key get no certificate, because this catalog does not show when and by whose authority
they were deleted. The certificate that was issued then is the proof. An unfinished shred in this catalog certifies what
it intended. Waiting erasures continue once the vault is open.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from vault.errors import NotFound, VaultError
from vault.format.names import recording_prefix
from vault.ids import HoldId, NodeId, RecordingId, TenantId, id_bytes, id_time
from vault.model import (
    AuditEvent,
    Cohort,
    Hold,
    HoldKind,
    HoldState,
    Part,
    Pin,
    Recording,
    RecordingKeys,
    RecordingState,
)
from vault.ports.audit import AuditTrail
from vault.ports.erasures import ErasureLookup
from vault.ports.holds import HoldLookup, HoldRows
from vault.ports.keys import Keyring, KeyringWriter
from vault.ports.objects import ObjectStore
from vault.ports.policies import PolicyLookup
from vault.ports.progress import Progress
from vault.ports.recordings import RecordingCounts, RecordingQuery, RecordingSearch, RecordingsLookup
from vault.ports.shreds import Shred, ShredRows
from vault.retention.decide import IN_FORCE
from vault.services.audit import event
from vault.services.backup.rebuild import Rebuilder, RebuildRows, Rebuilt
from vault.services.certificates.issuing import delete_below
from vault.services.holds.holds import pins_of
from vault.services.recordings.dossiers import Coordinates
from vault.services.surroundings import Surroundings

REVIEW_WITHIN = timedelta(days=7)
FOUND_SHREDDED = "found without a key after a restore; its certificate, if one was issued, is not in this catalog"

_PAGE = 500
_EVERY_HOLD = 10_000_000
_MATTER = "rebuilt after a restore"
_REASON = "the keyring holds this pin and the restored catalog did not know why: review it, and release it if it may go"
_TOO_LATE = "every recording it named was already shredded"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """The result of a reconciliation.

    `surviving` rows have a key, `shredded` rows were found without one, `unreadable` rows have a key that does not open
    them. `forgotten` rows had facts without a key. `locked` objects have no key but cannot be deleted yet.
    """

    generation: int
    surviving: int
    shredded: Sequence[RecordingId]
    forgotten: int
    rebuilt: int
    unfinished: int
    completed: int
    unknown_shredded: Sequence[RecordingId]
    unreadable: Sequence[RecordingId]
    tenants_rebuilt: Sequence[TenantId]
    holds_reapplied: int
    holds_too_late: int
    holds_rebuilt: Sequence[HoldId]
    objects_deleted: int
    locked: int

    def counts(self) -> dict[str, int]:
        """Return every member as a number."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {name: value if isinstance(value, int) else len(value) for name, value in values.items()}


@dataclass(slots=True, kw_only=True)
class _Scan:
    surviving: int = 0
    shredded: list[RecordingId] = dataclasses.field(default_factory=list)
    forgotten: int = 0
    held: dict[bytes, list[RecordingId]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Intent:
    """An unfinished shred, and the recordings of the erasures intended with it."""

    shred: Shred
    recordings: frozenset[RecordingId]

    def takes(self, row: Recording, part: Part) -> bool:
        """Tell whether this shred certifies that part of the row; never for an open recording."""
        if row.state is RecordingState.OPEN:
            return False
        if row.id in self.recordings or row.tenant in self.shred.drop_tenants:
            return True
        if part is Part.AUDIO and row.tenant in self.shred.changed:
            return True
        if part is Part.AUDIO:
            return self.shred.due_through is not None and row.audio.cohort.period <= self.shred.due_through
        return self.shred.takes_month(row.tenant, row.metadata.cohort.period)


class PinRows(HoldLookup, PolicyLookup, Protocol):
    """The catalog methods that find the owner of a pin."""


class ReconcilerRows(
    RebuildRows,
    RecordingSearch,
    RecordingCounts,
    HoldRows,
    PolicyLookup,
    ErasureLookup,
    ShredRows,
    AuditTrail,
    RecordingsLookup,
    Protocol,
):
    """The catalog methods that reconciling needs."""


async def unknown_pins(catalog: PinRows, keyring: Keyring) -> dict[bytes, list[Pin]]:
    """Return the pins whose hold the catalog does not know, by tag."""
    found: dict[bytes, list[Pin]] = {tag: [] for tag in keyring.tags() if not await _knows(catalog, tag)}
    for pin in keyring.pins(tags=found) if found else ():
        found[pin.tag].append(pin)
    return found


class Reconciler:
    """Runs once, before the vault serves requests."""

    def __init__(
        self,
        *,
        catalog: ReconcilerRows,
        keyring: Keyring,
        store: ObjectStore,
        coordinates: Coordinates,
        surroundings: Surroundings,
        progress: Progress,
        node: NodeId | None,
    ) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._store = store
        self._clock = surroundings.clock
        self._progress = progress
        self._rebuilder = Rebuilder(
            catalog=catalog,
            keyring=keyring,
            store=store,
            coordinates=coordinates,
            surroundings=surroundings,
            progress=progress,
            node=node,
        )

    async def run(self, why: str) -> Reconciled:
        """Reconcile and return the result; Unavailable if store or keyring cannot answer: then run it again."""
        await self._catalog.append_audit([event("restore.started", None, detail={"why": why})])
        found = await self._rebuilder.run()
        scan = await self._scan(await unknown_pins(self._catalog, self._keyring))
        reapplied, too_late = await self._reapply()
        holds = await self._rebuild_holds(scan, found)
        deleted, locked = await self._delete(found)
        outcome = Reconciled(
            generation=self._keyring.generation,
            surviving=scan.surviving,
            shredded=tuple(scan.shredded),
            forgotten=scan.forgotten,
            rebuilt=found.from_manifests,
            unfinished=found.from_segments,
            completed=found.completed,
            unknown_shredded=tuple(found.dead),
            unreadable=tuple(found.unreadable),
            tenants_rebuilt=tuple(found.tenants),
            holds_reapplied=reapplied,
            holds_too_late=too_late,
            holds_rebuilt=tuple(holds),
            objects_deleted=deleted,
            locked=locked,
        )
        await self._catalog.append_audit([event("restore.reconciled", None, detail={"why": why, **outcome.counts()})])
        return outcome

    # -- rows and keys ------------------------------------------------------------------------------------------

    async def _scan(self, unknown: dict[bytes, list[Pin]]) -> _Scan:
        """Check every row once: rows without a key become shredded, rows under an unknown pin are listed."""
        self._progress.begin("catalog against keyring", sum((await self._catalog.count_recordings()).values()))
        intended = [await self._intent(shred) for shred in await self._catalog.unfinished_shreds()]
        by_cohort: dict[Cohort, list[Pin]] = defaultdict(list)
        for pin in (pin for pins in unknown.values() for pin in pins):
            by_cohort[pin.cohort].append(pin)
        scan = _Scan(held={tag: [] for tag in unknown})
        before: RecordingId | None = None
        while page := await self._catalog.recordings(RecordingQuery(before=before, limit=_PAGE)):
            gone: list[Recording] = []
            await self._forget(page, intended, scan)
            for row in page:
                if row.state is RecordingState.SHREDDED:
                    continue
                if self._keyring.derivable(row.audio):
                    scan.surviving += 1
                    for pin in by_cohort.get(row.audio.cohort, ()):
                        if pin.is_on(row.audio):
                            scan.held[pin.tag].append(row.id)
                elif not any(intent.takes(row, Part.AUDIO) for intent in intended):
                    gone.append(row)
            await self._catalog.shred_uncertified(
                [row.id for row in gone],
                reason=FOUND_SHREDDED,
                audit=[event("restore.found_shredded", None, tenant=row.tenant, target=row.id) for row in gone],
            )
            scan.shredded += [row.id for row in gone]
            self._progress.advance(len(page))
            before = page[-1].id
        return scan

    async def _intent(self, shred: Shred) -> _Intent:
        rows = [row.id for _, found in await self._catalog.erasures_of(shred.id) for row in found]
        return _Intent(shred=shred, recordings=frozenset(rows))

    async def _forget(self, page: Sequence[Recording], intended: Sequence[_Intent], scan: _Scan) -> None:
        """Remove facts and tokens without a key from the rows."""
        gone = [
            row
            for row in page
            if row.sealed_facts
            and not self._keyring.derivable(row.metadata)
            and not any(intent.takes(row, Part.METADATA) for intent in intended)
        ]
        await self._catalog.forget_metadata(
            [row.id for row in gone],
            audit=[event("restore.found_forgotten", None, tenant=row.tenant, target=row.id) for row in gone],
        )
        scan.forgotten += len(gone)

    # -- holds --------------------------------------------------------------------------------------------------

    async def _reapply(self) -> tuple[int, int]:
        """Pin the recordings of holds in force; return how many holds lacked pins, and how many came too late.

        A hold that was released since the backup is in force again, because its release is not in this catalog.
        """
        self._progress.begin("holds", None)
        reapplied = late = 0
        decided = [state for state in IN_FORCE if state is not HoldState.PLACING]
        for hold in await self._catalog.holds(states=decided, limit=_EVERY_HOLD):
            found = await self._catalog.keys_of(hold.recordings)
            rows = [found[identifier] for identifier in hold.recordings]
            async with self._keyring.writer() as writer:
                outcome = await self._reapply_one(hold, rows, writer)
            reapplied += outcome is HoldState.ACTIVE
            late += outcome is HoldState.RELEASED
        return reapplied, late

    async def _reapply_one(self, hold: Hold, rows: Sequence[RecordingKeys], writer: KeyringWriter) -> HoldState | None:
        """Return `active` if pins were added, `released` if no recording is left to hold, None without a change."""
        if not rows:  # a hold rebuilt from a pin whose recording is unknown: the pin stays
            return None
        kept = [row for row in rows if self._keyring.derivable(row.audio)]
        pins = pins_of(self._keyring, hold, kept)
        missing = not self._keyring.has_pins(pins)
        if missing:
            await writer.pin(pins)
        if len(kept) == len(rows) and kept:
            return await self._log_reapplied(hold) if missing else None
        now = self._clock.now()
        gone = {row.id for row in rows} - {row.id for row in kept}

        def revision(before: Hold) -> tuple[Hold, Sequence[AuditEvent]]:
            late = tuple(identifier for identifier in before.recordings if identifier in gone)
            left = tuple(identifier for identifier in before.recordings if identifier not in gone)
            after = dataclasses.replace(
                before,
                recordings=left,
                too_late=(*before.too_late, *late),
                state=before.state if left else HoldState.RELEASED,
                release_reason=before.release_reason if left else _TOO_LATE,
                grace_until=before.grace_until if left else now,
            )
            return after, [
                event("hold.too_late", None, outcome="refused", tenant=hold.tenant, target=each) for each in late
            ]

        await self._catalog.revise_hold(hold.id, revision)
        if not kept:
            return HoldState.RELEASED
        return await self._log_reapplied(hold) if missing else None

    async def _log_reapplied(self, hold: Hold) -> HoldState:
        await self._catalog.append_audit([event("hold.reapplied", None, tenant=hold.tenant, target=hold.id)])
        return HoldState.ACTIVE

    async def _rebuild_holds(self, scan: _Scan, found: Rebuilt) -> list[HoldId]:
        """Give every unknown pin a hold: a pin without one can be neither reviewed nor released."""
        tenants = self._keyring.tags()
        now = self._clock.now()
        rebuilt: list[HoldId] = []
        for tag, recordings in scan.held.items():
            await self._rebuilder.own(tenants[tag], found)
            hold = Hold(
                id=_hold_id(tag),
                tenant=tenants[tag],
                kind=HoldKind.LEGAL,
                matter=_MATTER,
                reason=_REASON,
                authority=_MATTER,
                owner="compliance",
                state=HoldState.ACTIVE,
                created_at=min(id_time(_hold_id(tag)), now),
                review_at=now + REVIEW_WITHIN,
                recordings=tuple(sorted(set(recordings))),
            )
            detail = {"recordings": len(recordings)}
            await self._catalog.add_hold(
                hold,
                audit=[event("hold.rebuilt", None, tenant=hold.tenant, target=hold.id, detail=detail)],
            )
            rebuilt.append(hold.id)
        return rebuilt

    # -- objects ------------------------------------------------------------------------------------------------

    async def _delete(self, found: Rebuilt) -> tuple[int, int]:
        """Delete the objects without a key, rows first; return how many were deleted and how many are locked."""
        self._progress.begin("objects without a key", None)
        if found.dead:
            # For recordings without a row the audit entry is the only record, so it is written before the deletion.
            detail = {"recordings": list(found.dead)}
            await self._catalog.append_audit([event("restore.unknown_shredded", None, detail=detail)])
        dead: defaultdict[str, list[str]] = defaultdict(list)
        for name in found.dead_names:
            dead[name[: name.rfind("/") + 1]].append(name)
        counted = Counter[bool]()
        for start in range(0, len(dead), _PAGE):
            counted += await self._delete_below(dict([*dead.items()][start : start + _PAGE]))
        after: RecordingId | None = None
        while page := await self._catalog.uncertified(after=after, limit=_PAGE):
            places = [recording_prefix(row.tenant, row.audio.cohort.period, row.id) for row in page]
            counted += await self._delete_below(dict.fromkeys(places, ()))
            after = page[-1].id
        return counted[True], counted[False]

    async def _delete_below(self, places: Mapping[str, Collection[str]]) -> Counter[bool]:
        """Return how many names are absent, and how many are not; a VaultError for a place stops it."""
        counted = Counter[bool]()
        for outcome in (await delete_below(self._store, places)).values():
            if isinstance(outcome, VaultError):
                raise outcome
            counted.update(each.absent for each in outcome)
        self._progress.advance(counted.total())
        return counted


def _hold_id(tag: bytes) -> HoldId:
    return HoldId(f"hold_{tag.hex()}")


async def _knows(catalog: PinRows, tag: bytes) -> bool:
    """Tell whether the catalog knows the hold, or the change of retention, that set the pin."""
    try:
        await catalog.hold(_hold_id(tag))
    except NotFound:
        return tag in {id_bytes(each.id) for each in await catalog.policy_requests()}
    return True
