"""Shreds, their certificates, and the overrides of two people."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from vault.certificates.batch import ID_BYTES, Entries, Group
from vault.ids import CertificateId, RecordingId, TenantId
from vault.model import AuditEvent, BatchPlace, CertificateStatus, Recording, ShredReceipt, StoredCertificate
from vault.ports.erasures import Erasure
from vault.ports.revision import Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class Shred:
    """A shred in the catalog: first intended, then with a receipt, then finished, when all its certificates are issued.

    It deletes:

    - audio of periods up to `due_through`,
    - metadata of each tenant up to the month in `metadata_through`, except the months in `spared`,
    - all recordings of `drop_tenants`,
    - the recordings of erasures that were intended with it,
    - audio of `changed` tenants that a change of their retention has made due.
    """

    id: str
    intended_at: datetime
    trigger: str
    due_through: int | None = None
    metadata_through: Mapping[TenantId, int] = field(default_factory=dict)
    spared: frozenset[tuple[TenantId, int]] = frozenset()
    drop_tenants: frozenset[TenantId] = frozenset()
    changed: frozenset[TenantId] = frozenset()
    receipt: ShredReceipt | None = None
    finished_at: datetime | None = None

    def takes_month(self, tenant: TenantId, month: int) -> bool:
        """Tell whether it deletes the tenant's metadata of a month because that is due."""
        return month <= self.metadata_through.get(tenant, -1) and (tenant, month) not in self.spared


class ShredRows(Protocol):
    """The catalog rows of shreds."""

    async def intend_shred(
        self,
        shred: Shred,
        *,
        erasures: Sequence[Erasure] = (),
        spared: Sequence[RecordingId] = (),
        audit: Sequence[AuditEvent] = (),
    ) -> Sequence[Recording]:
        """Make the intent durable and raise the sweep floor to `due_through`, in one transaction.

        `erasures` are saved with it; Conflict if one is no longer approved and waiting. The shred deletes their
        recordings with the outcome `erasing`; those not yet shredded are set to `shredding`. Returns the recordings
        that the shred must keep: open ones that the intent would cover, and `spared`. Repeating an id changes nothing
        and returns the same.
        """

    async def record_receipt(self, shred: str, receipt: ShredReceipt, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Store the receipt. It may be repeated."""

    async def finish_shred(self, shred: str, *, at: datetime) -> None:
        """Record that all certificates of this shred are issued."""

    async def unfinished_shreds(self) -> Sequence[Shred]:
        """Return shreds without `finished_at`, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateBatch:
    """Certificates issued together: the signed statement, and the leaf hashes (32 bytes each) that it covers."""

    id: str
    issued_at: datetime
    statement: str
    leaves: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchEntries:
    """The entries of a batch, by its id. They have one status.

    The ids of its certificates begin with the same millisecond as the batch's: by that they are found.
    """

    batch: str
    issued_at: datetime
    status: CertificateStatus
    entries: Entries = field(repr=False)

    def ids(self, *, tenant: TenantId | None = None) -> Sequence[CertificateId]:
        """Return the ids of those that were issued, with `tenant` only that tenant's, in the order of their places."""
        mine = {number for number, group in enumerate(self.entries.groups) if tenant in {None, group.tenant}}
        return [
            CertificateId("cert_" + place[1][:ID_BYTES].hex())
            for place in self.entries.places
            if place is not None and place[0] in mine
        ]

    def certificates(
        self, *, tenant: TenantId | None = None, among: Container[bytes] | None = None
    ) -> Sequence[StoredCertificate]:
        """Return those that were issued, in the order of their places.

        With `tenant` only that tenant's, with `among` only those whose ids have these 16 bytes.
        """
        mine = {number for number, group in enumerate(self.entries.groups) if tenant in {None, group.tenant}}
        return [
            _stored(self, index, self.entries.groups[place[0]], place[1])
            for index, place in enumerate(self.entries.places)
            if place is not None and place[0] in mine and (among is None or place[1][:ID_BYTES] in among)
        ]


def _stored(batch: BatchEntries, index: int, group: Group, entry: bytes) -> StoredCertificate:
    superseded = entry[2 * ID_BYTES : 3 * ID_BYTES] if group.supersede else None
    return StoredCertificate(
        id=CertificateId("cert_" + entry[:ID_BYTES].hex()),
        recording=RecordingId("rec_" + entry[ID_BYTES : 2 * ID_BYTES].hex()),
        tenant=group.tenant,
        status=batch.status,
        supersedes=None if superseded is None else CertificateId("cert_" + superseded.hex()),
        issued_at=batch.issued_at,
        place=BatchPlace(batch=batch.batch, index=index, form=group.form, entry=entry),
        parts=group.parts,
    )


class CertificateLookup(Protocol):
    """Reads certificates."""

    async def certificate(self, certificate: CertificateId, *, tenant: TenantId | None = None) -> StoredCertificate:
        """Return a certificate; NotFound, also if `tenant` is given and it belongs to another."""

    async def certificates(
        self,
        *,
        tenant: TenantId | None = None,
        recording: RecordingId | None = None,
        before: CertificateId | None = None,
        limit: int = 100,
    ) -> Sequence[StoredCertificate]:
        """Return up to `limit` certificates older than `before`, newest first."""

    async def certificates_of(self, recordings: Sequence[RecordingId]) -> Sequence[StoredCertificate]:
        """Return all certificates of up to 1,000 recordings."""


class CertificateTexts(Protocol):
    """Reads the pieces from which the text of a certificate is made."""

    async def certificates_named(self, certificates: Collection[CertificateId]) -> Sequence[StoredCertificate]:
        """Return up to 1,000 certificates by id, in any order; NotFound if one is missing."""

    async def certificate_batches(self, batches: Collection[str]) -> Mapping[str, CertificateBatch]:
        """Return the batches with these ids, by id; NotFound if one is missing."""

    async def certificate_forms(self, forms: Collection[bytes]) -> Mapping[bytes, str]:
        """Return the forms with these digests, by digest; NotFound if one is missing."""


class Undeleted(NamedTuple):
    """A shredded recording whose objects are not yet verified absent, the period of its audio, its certificate."""

    id: RecordingId
    tenant: TenantId
    period: int
    certificate: CertificateId


class CertifyingRows(Protocol):
    """Stores certificates, and finds the recordings that wait for one."""

    async def certify(
        self,
        batch: CertificateBatch,
        entries: BatchEntries,
        *,
        forms: Mapping[bytes, str],
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Store a batch, its entries and forms, and update the recordings, in one transaction.

        A provisional certificate for the audio sets its recording to `shredded` and becomes its certificate. A final
        one replaces it, marks the recording's objects absent and puts one list in the place of their rows. A
        certificate for the metadata removes the sealed facts and the tokens from the row. A certificate is not issued
        if its recording has one of these parts and this status, or a final one; nothing is written if none is issued.
        NotFound if one names an unknown recording.
        """

    async def list_objects(self, *, after: RecordingId | None, limit: int) -> RecordingId | None:
        """Replace the object rows of up to `limit` recordings that are certified for good by one list each.

        They are the next after `after` in order of id. `segments` gives the same before and after. Returns the last of
        them, None if there was none. Only what versions before the lists certified has such rows.
        """

    async def drop_listed(self) -> int:
        """Drop at once the rows that lists stand for, of all periods up to the floor; return of how many.

        What is not certified for good keeps its rows, whatever its period. A period in use by a reader is left for the
        next time, and so is all of it on a database that drops such rows with each certificate.
        """

    async def undeleted_recordings(self, *, after: RecordingId | None, limit: int) -> Sequence[Undeleted]:
        """Return up to `limit` shredded recordings whose objects are not yet verified absent, in order of id."""

    async def unconfirmed_metadata(self, *, after: RecordingId | None, limit: int) -> Sequence[Recording]:
        """Return rows whose metadata, but not the audio, was shredded and has no final certificate, in order of id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOverride:
    """Permission of two people for one sweep, up to `through`, in spite of a tripped guard.

    It is for the early deletions of `tenant`, or for the clock guard (None). `stopped` states what had tripped when it
    was requested. It covers at most `early` recordings.
    """

    id: str
    tenant: TenantId | None = None
    stopped: str = ""
    early: int = 0
    through: datetime
    reason: str
    requested_by: str
    requested_at: datetime
    approved_by: str | None = None
    rejected_by: str | None = None
    used_at: datetime | None = None

    def is_open(self, *, now: datetime) -> bool:
        """Tell whether it may still be used, once it is approved."""
        return self.rejected_by is None and self.used_at is None and now <= self.through


class OverrideRows(Protocol):
    """The catalog rows of overrides."""

    async def add_override(self, override: SweepOverride, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert an override; Conflict if it exists, or if another for its tenant (or the clock) is open."""

    async def revise_override(self, override: str, revision: Revision[SweepOverride]) -> SweepOverride:
        """Replace the override with the one that `revision` returns, and return it; NotFound if there is none."""

    async def overrides(self) -> Sequence[SweepOverride]:
        """Return all overrides, newest first."""
