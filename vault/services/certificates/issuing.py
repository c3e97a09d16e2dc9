"""Issues deletion certificates in batches: provisional when the keys are gone, final when the objects are."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol, TypeAlias

from vault.certificates.batch import (
    HASH_BYTES,
    BatchStatement,
    Membership,
    ObjectList,
    Tree,
    leaf_hash,
    object_facts,
    object_list,
    root_of,
    verify_statement,
)
from vault.certificates.canonical import canonical_json
from vault.certificates.document import (
    AnyCertificate,
    Authority,
    DeletionCertificate,
    Issuer,
    StoredObject,
    Subject,
    read_document,
    subject,
    verify_certificate,
)
from vault.certificates.template import Entry, Form
from vault.crypto.signing import SigningKey, VerifyKey
from vault.errors import IntegrityError, NotFound, Unavailable, VaultError
from vault.format.names import recording_prefix
from vault.ids import CertificateId, RecordingId, TenantId, new_id, new_ids
from vault.model import (
    AuditEvent,
    BatchPlace,
    CertificateStatus,
    Part,
    Recording,
    SegmentRef,
    ShredReceipt,
    StoredCertificate,
    Tenant,
)
from vault.ports.objects import Deletion, ObjectStore
from vault.ports.recordings import RecordingLookup
from vault.ports.shreds import CertificateBatch, CertificateLookup, CertificateTexts, CertifyingRows, Shred
from vault.ports.tenants import SettingRows, TenantLookup
from vault.ports.time import Entropy
from vault.services.audit import event
from vault.services.certificates import content
from vault.services.certificates.content import Identity, Unnamed
from vault.services.surroundings import Surroundings
from vault.threads import in_thread

# -- batches ------------------------------------------------------------------------------------------------------
# Issues certificates in batches, and returns the same certificate each time from what is stored of it.
#
# The stored text gives the same bytes for ever: documents come from stored text, Ed25519 signatures are
# deterministic, and the batch's statement was signed when the keys were gone, not on request.


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
        return await in_thread(lambda: [text(certificate) for certificate in certificates])

    async def documents(self, certificates: Sequence[StoredCertificate]) -> Sequence[AnyCertificate]:
        """Return the document of each; IntegrityError if what is stored differs from what was signed."""
        batches, forms = await self._sources(certificates)

        def document(certificate: StoredCertificate) -> AnyCertificate:
            place = certificate.place
            if place is None:
                assert certificate.jws is not None
                return verify_certificate(certificate.jws, self.issuer).certificate
            return read_document(batches[place.batch].document(forms, place))

        return await in_thread(lambda: [document(certificate) for certificate in certificates])

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


# -- issuing ------------------------------------------------------------------------------------------------------

_PAGE = 500
_UNLABEL_CONCURRENCY = 24
"""Recordings at a time: an S3 client has 32 connections, and calls under way need some of them."""
_NONCE_BYTES = 16
_LISTED = "objects_listed"
_COMMITMENT_DIGITS = 64

_Voice: TypeAlias = tuple[TenantId, tuple[Part, ...], Authority]
"""What determines a certificate's wording within one shred."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletions:
    """How many recordings got their final certificate, and how many wait.

    `again_in` is when the next one that waits only for leases can be issued, None if there is none.
    """

    done: int = 0
    waiting: int = 0
    again_in: timedelta | None = None


@dataclass(slots=True, kw_only=True)
class _Wording:
    """What provisional certificates with one wording share; checked once for all of them."""

    first: DeletionCertificate
    form: Form


@dataclass(slots=True)
class _Progress:
    """Deletions under way; `forms` are those of final certificates, by their common parts."""

    done: int = 0
    waiting: int = 0
    waits: timedelta | None = None
    finals: list[DeletionCertificate] = field(default_factory=list)
    forms: dict[tuple[object, ...], Form] = field(default_factory=dict)
    firsts: dict[bytes, AnyCertificate] = field(default_factory=dict)
    """One provisional certificate of each form: what it says of keys and leases, the others say too."""


class CertifierRows(CertifyingRows, CertificateLookup, RecordingLookup, SettingRows, TenantLookup, Protocol):
    """The catalog methods that issuing certificates needs."""


class Certifier:
    """Issues certificates for shreds, and deletes the objects they made unreadable."""

    def __init__(
        self,
        *,
        catalog: CertifierRows,
        store: ObjectStore,
        certificates: Certificates,
        identity: Identity,
        surroundings: Surroundings,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._certificates = certificates
        self._identity = identity
        self._clock = surroundings.clock
        self._entropy = surroundings.entropy
        self._metrics = surroundings.metrics
        self._wordings: dict[_Voice, _Wording] = {}
        self._worded = ""
        self._seen: dict[int, float] = {}

    def check_named(self) -> None:
        """Raise Unnamed if certificates could not name who runs the vault; called before anything irreversible."""
        if self._identity.unnamed:
            raise Unnamed(
                f"identity.{self._identity.unnamed[0]}: certificates would carry a placeholder; nothing was shredded",
                hint="set processor and contact in [identity] of config.toml, and restart: callvault doctor",
                retry_after_seconds=3600,
            )

    # -- keys gone ----------------------------------------------------------------------------------------------

    async def prepare(self, subjects: Sequence[Subject], shred: Shred, receipt: ShredReceipt) -> IssuedBatch | None:
        """Sign in one batch that the keys of `subjects` are gone; None for no subjects. Nothing is stored yet.

        Invalid, and nothing is certified, if a certificate would contradict itself.
        """
        if not subjects:
            return None
        self._lease_began(receipt.epoch_destroyed)
        now = self._clock.now()
        gone = content.gone_at(shred, receipt)
        await self._word(subjects, shred, receipt, now)

        def sign() -> IssuedBatch:
            entries = self._entries(subjects, now=now, gone=gone)
            drafts = [self._checked(*each) for each in zip(entries, subjects, strict=True)]
            return self._certificates.sign(drafts, status=CertificateStatus.PROVISIONAL, at=now)

        # In a thread: a batch takes tens of milliseconds, and calls under way must not wait for it.
        return await in_thread(sign)

    async def store(self, issued: IssuedBatch, shred: Shred) -> int:
        """Make a prepared batch durable; recordings already certified add nothing. Returns how many it certifies."""
        await self._catalog.certify(
            issued.batch,
            issued.certificates,
            forms=issued.forms,
            audit=_by_tenant("shred.done", issued, {"shred": shred.id}),
        )
        self._metrics.certificates.labels("provisional").inc(len(issued.certificates))
        return len(issued.certificates)

    def _entries(self, subjects: Sequence[Subject], *, now: datetime, gone: datetime) -> list[Entry]:
        at = max(now, gone)
        identifiers = new_ids("cert", len(subjects), at=now, entropy=self._entropy)
        nonces = self._entropy(_NONCE_BYTES * len(subjects)).hex()
        width = 2 * _NONCE_BYTES
        return [
            Entry(
                CertificateId(identifier),
                object_facts(subject.objects),
                nonces[place * width : (place + 1) * width],
                content.recording_facts(subject, shredded_at=gone),
                content.retention_facts(subject),
                None,
                (),
                None,
                at,
            )
            for place, (identifier, subject) in enumerate(zip(identifiers, subjects, strict=True))
        ]

    async def _word(self, subjects: Sequence[Subject], shred: Shred, receipt: ShredReceipt, now: datetime) -> None:
        """Prepare the wording of every kind of certificate among `subjects`."""
        if self._worded != shred.id:
            self._worded, self._wordings = shred.id, {}
        firsts = {_voice(subject): subject for subject in subjects}
        if firsts.keys() <= self._wordings.keys():
            return
        tenants: Mapping[TenantId, Tenant] = {tenant.id: tenant for tenant in await self._catalog.tenants()}
        gone = content.gone_at(shred, receipt)
        for voice in firsts.keys() - self._wordings.keys():
            entry = self._entries([firsts[voice]], now=now, gone=gone)[0]
            tenant, parts, authority = voice
            first = content.provisional(
                entry,
                shred,
                receipt,
                parts=parts,
                authority=authority,
                tenant=tenants[tenant],
                identity=self._identity,
            )
            self._wordings[voice] = _Wording(first=first, form=Form.of(first))

    def _checked(self, entry: Entry, subject: Subject) -> Draft:
        """Put the entry into the wording of its kind; Invalid if they contradict each other."""
        wording = self._wordings[_voice(subject)]
        if _suspicious(entry, wording.first):
            entry.inside(wording.first)
        return Draft(entry, wording.form, subject.names)

    # -- objects gone -------------------------------------------------------------------------------------------

    async def delete_objects(self) -> Deletions:
        """Delete the objects of shredded recordings, and certify those absent whose leases have run out.

        Deletion only waits for the store; absence is checked again once the leases are over. Metadata that went alone
        has no objects and is certified before the store is asked.
        """
        progress = _Progress()
        await self._list_earlier()
        await self._confirm_metadata(progress)
        after: RecordingId | None = None
        while page := await self._catalog.undeleted_recordings(after=after, limit=_PAGE):
            failures = await self._delete_page(page, progress)
            await self._count_and_finish(len(page), progress)
            failure = next(iter(failures), None)
            if isinstance(failure, Unavailable):
                logger.warning("object deletion postponed", extra={"fields": {"reason": failure.message}})
                break
            if failure is not None:
                raise failure
            after = page[-1].id
        # Last: a row goes once its recording's list and final certificate are durable.
        await self._catalog.drop_listed()
        return Deletions(done=progress.done, waiting=progress.waiting, again_in=progress.waits)

    async def _list_earlier(self) -> None:
        """Have what earlier versions certified for good keep a list of its objects, once in a catalog's life.

        A crash in between leaves the rest as it was, and the next deletion begins again with what has no list.
        """
        if await self._catalog.setting(_LISTED):
            return
        after: RecordingId | None = None
        while after := await self._catalog.list_objects(after=after, limit=_PAGE):
            logger.info("objects of earlier deletions are listed", extra={"fields": {"through": after}})
        await self._catalog.save_setting(_LISTED, "yes")

    async def _confirm_metadata(self, progress: _Progress) -> None:
        after: RecordingId | None = None
        while page := await self._catalog.unconfirmed_metadata(after=after, limit=_PAGE):
            stored = {item.id: item for item in await self._catalog.certificates_of([row.id for row in page])}
            current = [stored[row.metadata_certificate_id] for row in page if row.metadata_certificate_id is not None]
            of_rows = {row.id: row for row in page}
            for certificate, before in zip(current, await self._certificates.documents(current), strict=True):
                self._conclude(_modern(before, of_rows[certificate.recording], ()), (), progress)
            await self._count_and_finish(len(page), progress)
            after = page[-1].id

    async def _count_and_finish(self, looked_at: int, progress: _Progress) -> None:
        progress.done += len(progress.finals)
        progress.waiting += looked_at - len(progress.finals)
        await self._finish(progress)

    async def _delete_page(self, page: Sequence[Recording], progress: _Progress) -> list[VaultError]:
        names = await self._catalog.object_names([row.id for row in page])
        places = {row.id: recording_prefix(row.tenant, row.audio.cohort.period, row.id) for row in page}
        outcomes = await self._delete_below({places[row.id]: names[row.id] for row in page})
        failures: list[VaultError] = []
        absent: dict[RecordingId, Sequence[Deletion]] = {}
        for row in page:
            outcome = outcomes[places[row.id]]
            if isinstance(outcome, VaultError):
                failures.append(outcome)
            elif all(deletion.absent for deletion in outcome):
                absent[row.id] = outcome
        await self._conclude_ripe([row for row in page if row.id in absent], absent, progress)
        return failures

    async def _conclude_ripe(
        self, page: Sequence[Recording], absent: Mapping[RecordingId, Sequence[Deletion]], progress: _Progress
    ) -> None:
        """Make final certificates of those whose leases have run out.

        One document tells of all with its form how long they wait, so that the others' are read only once.
        """
        stored = {item.id: item for item in await self._catalog.certificates_of([row.id for row in page])}
        current = {row.id: stored[row.certificate_id] for row in page if row.certificate_id is not None}
        firsts = {each.place.form: each for each in current.values() if each.place is not None}
        new = [each for form, each in firsts.items() if form not in progress.firsts]
        for first, document in zip(new, await self._certificates.documents(new), strict=True):
            assert first.place is not None
            progress.firsts[first.place.form] = document
        ripe = [
            row
            for row in page
            if (place := current[row.id].place) is None or not self._waits(progress.firsts[place.form], progress)
        ]
        objects = await self._catalog.segments_of([row.id for row in ripe if current[row.id].place is None])
        documents = await self._certificates.documents([current[row.id] for row in ripe])
        for row, before in zip(ripe, documents, strict=True):
            self._conclude(_modern(before, row, objects.get(row.id, ())), absent[row.id], progress)

    async def _delete_below(self, places: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[Deletion] | VaultError]:
        """Delete what is below each place; the label of an ended hold must not outlive the key."""
        outcomes = dict(await self._store.delete_below(places))
        slots = asyncio.Semaphore(_UNLABEL_CONCURRENCY)

        async def unlabel(place: str, deletions: Sequence[Deletion]) -> None:
            async with slots:
                try:
                    for deletion in deletions:
                        with suppress(NotFound):
                            await self._store.set_held(deletion.name, held=False)
                    again[place] = places[place]
                except VaultError as error:
                    outcomes[place] = error

        again: dict[str, Sequence[str]] = {}
        kept = {
            place: left
            for place, outcome in outcomes.items()
            if not isinstance(outcome, VaultError) and (left := [each for each in outcome if not each.absent])
        }
        if kept:
            await asyncio.gather(*(unlabel(place, left) for place, left in kept.items()))
            outcomes |= await self._store.delete_below(again)
        return outcomes

    def _conclude(self, before: DeletionCertificate, deletions: Sequence[Deletion], progress: _Progress) -> None:
        """Make the final certificate, unless a key copy is not known to be gone or a lease may still run."""
        if not content.can_be_final(before):
            fields = {"recording": before.recording.id}
            logger.warning("a key copy is not known to be gone; no final certificate", extra={"fields": fields})
            return
        if self._waits(before, progress):
            return
        now = self._clock.now()
        (identifier,) = new_ids("cert", 1, at=now, entropy=self._entropy)
        nonce = self._entropy(_NONCE_BYTES).hex()
        progress.finals.append(content.final(before, deletions, certificate_id=identifier, nonce=nonce, at=now))

    def _waits(self, before: AnyCertificate, progress: _Progress) -> bool:
        """Tell whether only a lease is missing that may still run, and note for how long."""
        began = self._lease_began(before.sanitisation.epoch_destroyed)
        left = content.lease_of(before) - timedelta(seconds=self._clock.monotonic() - began)
        if left <= timedelta(0) or not content.can_be_final(before):
            return False
        progress.waits = left if progress.waits is None else min(progress.waits, left)
        return True

    def _lease_began(self, epoch: int) -> float:
        """Return, on the clock that never steps, the latest time at which this epoch can have been destroyed.

        It is when this process first heard of it; leases count from there, whatever the wall clock does.
        """
        return self._seen.setdefault(epoch, self._clock.monotonic())

    async def _finish(self, progress: _Progress) -> None:
        """Issue the final certificates of one page in one batch."""
        finals, progress.finals = progress.finals, []
        if not finals:
            return
        now = self._clock.now()

        def sign() -> IssuedBatch:
            drafts = [_final_draft(certificate, progress.forms) for certificate in finals]
            return self._certificates.sign(drafts, status=CertificateStatus.FINAL, at=now)

        issued = await in_thread(sign)
        await self._catalog.certify(
            issued.batch,
            issued.certificates,
            forms=issued.forms,
            audit=_by_tenant("certificate.issued", issued, {}),
        )
        self._metrics.certificates.labels("final").inc(len(finals))


def _modern(before: AnyCertificate, row: Recording, objects: Sequence[SegmentRef]) -> DeletionCertificate:
    """Return a provisional certificate in today's version; an older one is completed from the row."""
    if isinstance(before, DeletionCertificate):
        return before
    said = subject(row, objects, parts=before.media.parts)
    return content.modern(before, said, object_facts(said.objects))


def _voice(subject: Subject) -> _Voice:
    return subject.parts[0].coordinate.cohort.tenant, subject.names, subject.authority


def _by_tenant(name: str, issued: IssuedBatch, detail: Mapping[str, str]) -> list[AuditEvent]:
    """Describe one batch to each tenant it concerns; its root covers every certificate in it."""
    counts = Counter(certificate.tenant for certificate in issued.certificates)
    return [
        event(
            name,
            None,
            tenant=tenant,
            target=issued.batch.id,
            detail={**detail, "certificates": count, "root": issued.root},
        )
        for tenant, count in sorted(counts.items())
    ]


def _final_draft(certificate: DeletionCertificate, forms: dict[tuple[object, ...], Form]) -> Draft:
    """Split a final certificate; another one's form is used only if it gives this one's document."""
    entry = Entry.of(certificate)
    key = (
        certificate.sanitisation.epoch_destroyed,
        certificate.parties.tenant,
        certificate.parts,
        certificate.trigger,
    )
    form = forms.get(key)
    if form is None or form.document(entry.text()) != canonical_json(certificate):
        form = forms[key] = Form.of(certificate)
    return Draft(entry, form, certificate.parts)


def _suspicious(entry: Entry, first: DeletionCertificate) -> bool:
    """Tell whether an entry needs the full check: cheap, and always true for one that contradicts `first`."""
    sanitisation = first.sanitisation
    retention = entry.retention
    return (
        retention.captured_at > retention.retain_until
        or retention.retain_until > sanitisation.unrecoverable_at
        or any(
            (part.coordinate.cohort.tenant, part.coordinate.cohort.part) != (first.parties.tenant, part.part)
            or not (part.key_commitment is None or len(part.key_commitment) == _COMMITMENT_DIGITS)
            for part in entry.recording.parts
        )
    )
