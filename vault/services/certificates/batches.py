"""Issues certificates in batches, and returns the same certificate each time from what is stored of it.

The stored text gives the same bytes for ever: documents come from stored text, Ed25519 signatures are deterministic,
and the batch's statement was signed when the keys were gone, not on request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from vault.certificates.batch import BatchStatement, Membership, verify_statement
from vault.certificates.document import (
    AnyCertificate,
    DeletionCertificate,
    Issuer,
    StoredObject,
    read_document,
    verify_certificate,
)
from vault.certificates.objects import ObjectList, object_list
from vault.certificates.template import Entry, Form
from vault.certificates.tree import HASH_BYTES, Tree, leaf_hash, root_of
from vault.crypto.signing import SigningKey, VerifyKey
from vault.errors import IntegrityError, NotFound
from vault.ids import new_id
from vault.model import BatchPlace, CertificateStatus, Part, StoredCertificate
from vault.ports.recordings import RecordingLookup
from vault.ports.shreds import CertificateBatch, CertificateTexts
from vault.ports.time import Entropy


class Draft(NamedTuple):
    """A certificate to sign: its document in two pieces, and the parts whose keys it attests."""

    entry: Entry
    form: Form
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedBatch:
    """A signed batch, to be stored in one transaction."""

    batch: CertificateBatch
    root: str
    forms: Mapping[bytes, str]
    certificates: Sequence[StoredCertificate]


class BatchRows(CertificateTexts, RecordingLookup, Protocol):
    """The catalog methods that the texts of certificates need."""


class Certificates:
    """Signs and reads certificates; `issuer` is the public key that verifies them."""

    def __init__(self, *, catalog: BatchRows, issuer_key: SigningKey, entropy: Entropy) -> None:
        self._catalog = catalog
        self._issuer = Issuer(issuer_key)
        self.issuer = issuer_key.public
        self._entropy = entropy

    @property
    def issuer_public_pem(self) -> str:
        """The public key that verifies certificates."""
        return self.issuer.to_pem().decode()

    # -- issuing ------------------------------------------------------------------------------------------------

    def sign(self, drafts: Sequence[Draft], *, status: CertificateStatus, at: datetime) -> IssuedBatch:
        """Sign one statement over all documents, which the caller has checked for contradictions."""
        identifier = new_id("bat", at=at, entropy=self._entropy)
        leaves: list[bytes] = []
        stored: list[StoredCertificate] = []
        for index, (entry, form, parts) in enumerate(drafts):
            text = entry.text()
            leaves.append(leaf_hash(form.document(text)))
            stored.append(
                StoredCertificate(
                    id=entry.certificate_id,
                    recording=entry.recording.id,
                    tenant=entry.recording.parts[0].coordinate.cohort.tenant,
                    status=status,
                    supersedes=entry.supersedes,
                    issued_at=at,
                    place=BatchPlace(batch=identifier, index=index, form=form.digest, entry=text),
                    parts=parts,
                )
            )
        root = root_of(leaves).hex()
        statement = BatchStatement(batch_id=identifier, issued_at=at, size=len(leaves), root=root)
        return IssuedBatch(
            batch=CertificateBatch(
                id=identifier,
                issued_at=at,
                statement=self._issuer.issue_batch(statement),
                leaves=b"".join(leaves),
            ),
            root=root,
            forms={form.digest: form.text for form in {id(draft.form): draft.form for draft in drafts}.values()},
            certificates=stored,
        )

    # -- reading ------------------------------------------------------------------------------------------------

    async def jws(self, certificate: StoredCertificate) -> str:
        """Return the certificate itself: a compact JWS, the same each time."""
        return (await self.texts([certificate]))[0]

    async def texts(self, certificates: Sequence[StoredCertificate]) -> Sequence[str]:
        """Return the compact JWS of each; IntegrityError if what is stored differs from what was signed."""
        batches, forms = await self._sources(certificates)

        def text(certificate: StoredCertificate) -> str:
            place = certificate.place
            if place is None:
                assert certificate.jws is not None
                return certificate.jws
            batch = batches[place.batch]
            return self._issuer.issue_member(batch.document(forms, place), batch.membership(place.index))

        # In a thread, as below: a long page takes tens of milliseconds.
        return await asyncio.to_thread(lambda: [text(certificate) for certificate in certificates])

    async def documents(self, certificates: Sequence[StoredCertificate]) -> Sequence[AnyCertificate]:
        """Return the document of each; IntegrityError if what is stored differs from what was signed."""
        batches, forms = await self._sources(certificates)

        def document(certificate: StoredCertificate) -> AnyCertificate:
            place = certificate.place
            if place is None:
                assert certificate.jws is not None
                return verify_certificate(certificate.jws, self.issuer).certificate
            return read_document(batches[place.batch].document(forms, place))

        return await asyncio.to_thread(lambda: [document(certificate) for certificate in certificates])

    async def objects(self, certificate: StoredCertificate) -> ObjectList:
        """Return the list of the objects that a certificate counts; the list is kept after their deletion.

        NotFound for a certificate of version 1, which names the objects itself. IntegrityError if the catalog no longer
        has the list that the certificate commits to.
        """
        (document,) = await self.documents([certificate])
        if not isinstance(document, DeletionCertificate):
            raise NotFound(f"{certificate.id} names its objects itself", hint="they are in its document, under media")
        refs = await self._catalog.segments(certificate.recording) if Part.AUDIO in document.parts else ()
        found = object_list(certificate.id, [StoredObject(ref.name, ref.object_bytes, ref.sha256) for ref in refs])
        if found.facts() != document.data.objects:
            raise IntegrityError(f"the list of objects beside {certificate.id} changed after it was signed")
        return found

    async def _sources(
        self, certificates: Sequence[StoredCertificate]
    ) -> tuple[Mapping[str, _OpenBatch], Mapping[bytes, Form]]:
        places = [certificate.place for certificate in certificates if certificate.place is not None]
        if not places:
            return {}, {}
        batches = await self._catalog.certificate_batches({place.batch for place in places})
        forms = await self._catalog.certificate_forms({place.form for place in places})
        return (
            {name: _OpenBatch(batch, self.issuer) for name, batch in batches.items()},
            {digest: Form(text) for digest, text in forms.items()},
        )


class _OpenBatch:
    """A stored batch whose leaves were verified against its signature.

    The certificates' own signatures are made on request, so anything added to the catalog later must not pass as
    issued.
    """

    def __init__(self, batch: CertificateBatch, key: VerifyKey) -> None:
        self._statement = batch.statement
        self._leaves = _split(batch.leaves)
        self._tree = Tree(self._leaves)
        signed = verify_statement(batch.statement, key)
        if (signed.size, signed.root, signed.batch_id) != (self._tree.size, self._tree.root.hex(), batch.id):
            raise IntegrityError(f"the leaves of {batch.id} are not the ones that were signed; none was given out")

    def document(self, forms: Mapping[bytes, Form], place: BatchPlace) -> bytes:
        found = forms[place.form].document(place.entry)
        if not 0 <= place.index < self._tree.size or leaf_hash(found) != self._leaves[place.index]:
            raise IntegrityError(
                f"certificate {place.index} of {place.batch} changed after it was signed; it was not given out"
            )
        return found

    def membership(self, index: int) -> Membership:
        return Membership(statement=self._statement, index=index, path=self._tree.path(index))


def _split(leaves: bytes) -> list[bytes]:
    return [leaves[at : at + HASH_BYTES] for at in range(0, len(leaves), HASH_BYTES)]
