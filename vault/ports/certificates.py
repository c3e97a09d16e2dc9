"""Deletion certificates, their batches, and the recordings that wait for one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from vault.ids import CertificateId, RecordingId, TenantId
from vault.model import AuditEvent, Recording, StoredCertificate


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateBatch:
    """Certificates issued together: the signed statement, and the leaf hashes (32 bytes each) that it covers."""

    id: str
    issued_at: datetime
    statement: str
    leaves: bytes


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

    async def certificate_batches(self, batches: Collection[str]) -> Mapping[str, CertificateBatch]:
        """Return the batches with these ids, by id; NotFound if one is missing."""

    async def certificate_forms(self, forms: Collection[bytes]) -> Mapping[bytes, str]:
        """Return the forms with these digests, by digest; NotFound if one is missing."""


class CertifyingRows(Protocol):
    """Stores certificates, and finds the recordings that wait for one."""

    async def certify(
        self,
        batch: CertificateBatch,
        certificates: Sequence[StoredCertificate],
        *,
        forms: Mapping[bytes, str],
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Store a batch, its certificates and forms, and update the recordings, in one transaction.

        A provisional certificate for the audio sets its recording to `shredded` and becomes its certificate. A final
        one replaces it, marks the recording's objects absent and puts one list in the place of their rows. A
        certificate for the metadata removes the sealed facts and the tokens from the row. A second certificate for the
        same recording, status and parts is ignored.
        """

    async def list_objects(self, *, after: RecordingId | None, limit: int) -> RecordingId | None:
        """Replace the object rows of up to `limit` recordings that are certified for good by one list each.

        They are the next after `after` in order of id. `segments` gives the same before and after. Returns the last of
        them, None if there was none. Only what versions before the lists certified has such rows.
        """

    async def undeleted_recordings(self, *, after: RecordingId | None, limit: int) -> Sequence[Recording]:
        """Return up to `limit` shredded rows whose objects are not yet verified absent, in order of id."""

    async def unconfirmed_metadata(self, *, after: RecordingId | None, limit: int) -> Sequence[Recording]:
        """Return rows whose metadata, but not the audio, was shredded and has no final certificate, in order of id."""
