"""Deletion certificates, the batches that signed them, and whoever waits for one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from vault.ids import CertificateId, RecordingId, TenantId
from vault.model import AuditEvent, Recording, StoredCertificate


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateBatch:
    """Certificates issued together: the signed statement and the leaf hashes (32 bytes each) it covers."""

    id: str
    issued_at: datetime
    statement: str
    leaves: bytes


class CertificateLookup(Protocol):
    """Certificates as they were issued."""

    async def certificate(self, certificate: CertificateId, *, tenant: TenantId | None = None) -> StoredCertificate:
        """Return one, with `tenant` only if it is that tenant's; NotFound."""

    async def certificates(
        self,
        *,
        tenant: TenantId | None = None,
        recording: RecordingId | None = None,
        before: CertificateId | None = None,
        limit: int = 100,
    ) -> Sequence[StoredCertificate]:
        """Return a page, newest first."""

    async def certificates_of(self, recordings: Sequence[RecordingId]) -> Sequence[StoredCertificate]:
        """Return every certificate of up to 1,000 recordings."""


class CertificateTexts(Protocol):
    """What the text of a certificate is made of."""

    async def certificate_batches(self, batches: Collection[str]) -> Mapping[str, CertificateBatch]:
        """Return the batches of these ids, by id; NotFound if one is missing."""

    async def certificate_forms(self, forms: Collection[bytes]) -> Mapping[bytes, str]:
        """Return the forms of these digests, by digest; NotFound if one is missing."""


class CertifyingRows(Protocol):
    """What waits for a certificate, and what it becomes with one."""

    async def certify(
        self,
        batch: CertificateBatch,
        certificates: Sequence[StoredCertificate],
        *,
        forms: Mapping[bytes, str],
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Store a batch, its certificates and forms, and move the recordings along, in one transaction.

        A provisional one for the audio moves its recording to shredded and becomes its certificate; a final one
        becomes its certificate and marks its objects absent. One for the metadata takes the sealed facts and the
        tokens out of the row. Repeating the same recording, status and parts is harmless: the first stays.
        """

    async def undeleted_recordings(self, *, after: RecordingId | None, limit: int) -> Sequence[Recording]:
        """Return shredded rows whose objects are not yet verified absent, in id order."""

    async def unconfirmed_metadata(self, *, after: RecordingId | None, limit: int) -> Sequence[Recording]:
        """Return rows whose metadata went without the audio and has no final certificate yet, in id order."""
