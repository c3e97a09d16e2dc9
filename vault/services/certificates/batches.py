"""Signs certificates in batches, and returns the same certificate each time from what is stored of it.

The stored pieces give the same bytes for ever: documents come from stored text and values, Ed25519 signatures are
deterministic, and the batch's statement was signed when the keys were gone, not on request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from vault.certificates.batch import (
    HASH_BYTES,
    BatchStatement,
    Entries,
    Group,
    Membership,
    ObjectList,
    Tree,
    leaf_hash,
    object_list,
    root_of,
    verify_statement,
)
from vault.certificates.document import (
    AnyCertificate,
    DeletionCertificate,
    Issuer,
    StoredObject,
    read_document,
    verify_certificate,
)
from vault.certificates.template import Columns, Form, Values, earlier_document
from vault.crypto.signing import SigningKey, VerifyKey
from vault.errors import IntegrityError, NotFound
from vault.ids import CertificateId, TenantId, new_id
from vault.model import (
    BatchPlace,
    CertificateStatus,
    Part,
    StoredCertificate,
)
from vault.ports.recordings import RecordingLookup
from vault.ports.shreds import (
    BatchEntries,
    CertificateBatch,
    CertificateTexts,
)
from vault.ports.time import Entropy
from vault.threads import in_thread

_KEPT_OPEN: Final = 4
"""How many batches are kept open: one of 10,000 certificates takes 1.5 MB."""


class Draft(NamedTuple):
    """Certificates of one form to sign: their values, whose they are, and the parts whose keys they attest.

    For a form that inherits, `columns` have the values of the superseded certificates too.
    """

    form: Form
    columns: Columns
    tenant: TenantId
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedBatch:
    """A signed batch, to be stored in one transaction."""

    batch: CertificateBatch
    entries: BatchEntries
    root: str
    forms: Mapping[bytes, str]


class Opened(NamedTuple):
    """A certificate's document, and the values of its entry; None if it has no entry, or one that is not complete."""

    document: AnyCertificate
    values: Values | None


class BatchRows(CertificateTexts, RecordingLookup, Protocol):
    """The catalog methods that the texts of certificates need."""


class Certificates:
    """Signs and reads certificates; `issuer` is the public key that verifies them."""

    def __init__(self, *, catalog: BatchRows, issuer_key: SigningKey, entropy: Entropy) -> None:
        self._catalog = catalog
        self._issuer = Issuer(issuer_key)
        self.issuer = issuer_key.public
        self._entropy = entropy
        self._opened: dict[str, tuple[CertificateBatch, _OpenBatch]] = {}

    @property
    def issuer_public_pem(self) -> str:
        """The public key that verifies certificates."""
        return self.issuer.to_pem().decode()

    # -- issuing ------------------------------------------------------------------------------------------------

    def sign(self, drafts: Sequence[Draft], *, status: CertificateStatus, at: datetime) -> IssuedBatch:
        """Sign one statement over all documents, which the caller has checked for contradictions.

        The ids of the certificates begin with the millisecond of `at`. What is hashed is what the stored pieces give.
        """
        identifier = new_id("bat", at=at, entropy=self._entropy)
        leaves: list[bytes] = []
        places: list[tuple[int, bytes]] = []
        groups: dict[bytes, int] = {}
        shared: list[Group] = []
        forms: dict[bytes, str] = {}
        for form, columns, tenant, parts in drafts:
            entries, documents = form.compose(columns)
            leaves += map(leaf_hash, documents)
            number = groups.setdefault(form.digest, len(groups))
            if number == len(shared):
                shared.append(Group(tenant, parts, form.digest, form.supersedes))
                forms[form.digest] = form.text
            places += [(number, entry) for entry in entries]
        root = root_of(leaves).hex()
        statement = BatchStatement(batch_id=identifier, issued_at=at, size=len(leaves), root=root)
        return IssuedBatch(
            batch=CertificateBatch(
                id=identifier,
                issued_at=at,
                statement=self._issuer.issue_batch(statement),
                leaves=b"".join(leaves),
            ),
            entries=BatchEntries(batch=identifier, issued_at=at, status=status, entries=Entries(shared, places)),
            root=root,
            forms=forms,
        )

    # -- reading ------------------------------------------------------------------------------------------------

    async def jws(self, certificate: StoredCertificate) -> str:
        """Return the certificate itself: a compact JWS, the same each time."""
        return (await self.texts([certificate]))[0]

    async def texts(self, certificates: Sequence[StoredCertificate]) -> Sequence[str]:
        """Return the compact JWS of each; IntegrityError if what is stored differs from what was signed."""
        sources = await self._sources(certificates)

        def text(certificate: StoredCertificate) -> str:
            place = certificate.place
            if place is None:
                assert certificate.jws is not None
                return certificate.jws
            return self._issuer.issue_member(sources.document(certificate), sources.membership(place))

        # In a thread, as below: a long page takes tens of milliseconds.
        return await in_thread(lambda: [text(certificate) for certificate in certificates])

    async def documents(self, certificates: Sequence[StoredCertificate]) -> Sequence[AnyCertificate]:
        """Return the document of each; IntegrityError if what is stored differs from what was signed."""
        return [each.document for each in await self.opened(certificates)]

    async def opened(self, certificates: Sequence[StoredCertificate]) -> Sequence[Opened]:
        """Return the document of each with the values that a final certificate can inherit, as `documents` does."""
        sources = await self._sources(certificates)

        def open_one(certificate: StoredCertificate) -> Opened:
            if certificate.place is None:
                assert certificate.jws is not None
                return Opened(verify_certificate(certificate.jws, self.issuer).certificate, None)
            return Opened(read_document(sources.document(certificate)), sources.complete(certificate.place))

        return await in_thread(lambda: [open_one(certificate) for certificate in certificates])

    async def values(self, certificates: Sequence[StoredCertificate]) -> Sequence[Values | None]:
        """Return the values of each that a final certificate can inherit; None for one that must be opened.

        IntegrityError as for `documents`. No document is parsed: that takes a hundred times as long.
        """
        sources = await self._sources(certificates)

        def values_of(certificate: StoredCertificate) -> Values | None:
            if certificate.place is None or (found := sources.complete(certificate.place)) is None:
                return None
            sources.document(certificate)
            return found

        return await in_thread(lambda: [values_of(certificate) for certificate in certificates])

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

    async def _sources(self, certificates: Sequence[StoredCertificate]) -> _Sources:
        found = _Sources()
        places = [certificate.place for certificate in certificates if certificate.place is not None]
        if not places:
            return found
        batches = await self._catalog.certificate_batches({place.batch for place in places})
        found.batches = await in_thread(self._open, batches)
        found.forms = await self._catalog.certificate_forms({place.form for place in places})
        inheriting = [each for each in certificates if found.inherits(each.place)]
        names = {each.supersedes for each in inheriting if each.supersedes is not None}
        before = await self._catalog.certificates_named(names) if names else ()
        further = {each.place.form for each in before if each.place is not None} - found.forms.keys()
        if further:
            found.forms = {**found.forms, **await self._catalog.certificate_forms(further)}
        found.superseded = {each.id: found.complete(each.place) for each in before if each.place is not None}
        return found

    def _open(self, batches: Mapping[str, CertificateBatch]) -> Mapping[str, _OpenBatch]:
        """Return the batches opened; the last ones are kept, for the pages of a deletion share few of them."""
        found: dict[str, tuple[CertificateBatch, _OpenBatch]] = {}
        for name, batch in batches.items():
            known = self._opened.get(name)
            # Only what is byte for byte the batch that was verified is not verified again.
            found[name] = known if known and known[0] == batch else (batch, _OpenBatch(batch, self.issuer))
        self._opened = dict([*self._opened.items(), *found.items()][-_KEPT_OPEN:])
        return {name: opened for name, (_, opened) in found.items()}


class _Sources:
    """The stored pieces of some certificates: their batches and forms, and the values of what they supersede."""

    def __init__(self) -> None:
        self._open: dict[bytes, Form] = {}
        self.batches: Mapping[str, _OpenBatch] = {}
        self.forms: Mapping[bytes, str] = {}
        self.superseded: Mapping[CertificateId, Values | None] = {}

    def document(self, certificate: StoredCertificate) -> bytes:
        """Return the document in two pieces; IntegrityError unless it is the one that was signed."""
        place = certificate.place
        assert place is not None
        if isinstance(place.entry, str):
            found = earlier_document(self.forms[place.form], place.entry)
        else:
            before = None if certificate.supersedes is None else self.superseded.get(certificate.supersedes)
            found = self._form(place).document(place.entry, before)
        if not self.batches[place.batch].has(found, place.index):
            raise IntegrityError(
                f"{certificate.id} changed after it was signed; it was not given out",
                hint=f"a list goes on behind it: before={certificate.id}",
            )
        return found

    def membership(self, place: BatchPlace) -> Membership:
        return self.batches[place.batch].membership(place.index)

    def inherits(self, place: BatchPlace | None) -> bool:
        """Tell whether the document needs the values of what it supersedes."""
        return place is not None and isinstance(place.entry, bytes) and bool(self._form(place).inherits)

    def complete(self, place: BatchPlace) -> Values | None:
        """Return the values of an entry that needs no other; None for any other."""
        if isinstance(place.entry, str) or self.inherits(place):
            return None
        return self._form(place).values(place.entry)

    def _form(self, place: BatchPlace) -> Form:
        if place.form not in self._open:
            self._open[place.form] = Form(self.forms[place.form])
        return self._open[place.form]


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

    def has(self, document: bytes, index: int) -> bool:
        """Tell whether this is the document that was signed in this place."""
        return 0 <= index < self._tree.size and leaf_hash(document) == self._leaves[index]

    def membership(self, index: int) -> Membership:
        return Membership(statement=self._statement, index=index, path=self._tree.path(index))


def _split(leaves: bytes) -> list[bytes]:
    return [leaves[at : at + HASH_BYTES] for at in range(0, len(leaves), HASH_BYTES)]
