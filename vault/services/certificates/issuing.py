"""Issues deletion certificates in batches: provisional when the keys are gone, final when the objects are."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from operator import gt
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from vault.certificates.batch import (
    object_facts,
)
from vault.certificates.canonical import canonical_json
from vault.certificates.document import (
    AnyCertificate,
    DeletionCertificate,
    Subject,
    subject,
)
from vault.certificates.template import COMMITMENTS, Columns, Form, Lot, Values, micros, provisional_values, values_of
from vault.errors import IntegrityError, NotFound, Unavailable, VaultError
from vault.format.names import recording_prefix
from vault.ids import CertificateId, RecordingId, TenantId, new_ids
from vault.model import (
    AuditEvent,
    CertificateStatus,
    Recording,
    SegmentRef,
    ShredReceipt,
    StoredCertificate,
    Tenant,
)
from vault.ports.objects import Deletion, ObjectStore
from vault.ports.recordings import RecordingLookup, RecordingsLookup
from vault.ports.shreds import CertificateTexts, CertifyingRows, Shred, Undeleted
from vault.ports.tenants import SettingRows, TenantLookup
from vault.services.audit import event
from vault.services.certificates import content
from vault.services.certificates.batches import Certificates, Draft, IssuedBatch, Opened
from vault.services.certificates.content import Identity, Unnamed
from vault.services.surroundings import Surroundings
from vault.threads import in_thread

_PAGE = 500
_DELETED_AT_ONCE = 1000
"""Recordings whose objects are deleted, and which get their final certificates, together: what is synced is shared."""
_PAGES_AHEAD = 2
"""Pages that the store is deleting while one is certified: deletion waits for disks, certificates for a processor."""
_UNLABEL_CONCURRENCY = 24
"""Recordings at a time: an S3 client has 32 connections, and calls under way need some of them."""
_NONCE_BYTES = 16
_LISTED = "objects_listed"
_COMMITMENT_BYTES = 32

_Kind: TypeAlias = tuple[object, ...]
"""What determines the form of a certificate within one shred."""
_Waiting = TypeVar("_Waiting", Recording, Undeleted)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletions:
    """How many recordings got their final certificate, and how many wait.

    `again_in` is the time until the next certificate that waits only for leases can be issued; None without one.
    """

    done: int = 0
    waiting: int = 0
    again_in: timedelta | None = None


class _Wording(NamedTuple):
    """What provisional certificates of one kind share; checked once for all of them."""

    tenant: Tenant
    first: DeletionCertificate
    form: Form


class _Absent(NamedTuple):
    """The provisional certificate of a recording whose objects are absent, with the values that can be inherited."""

    before: DeletionCertificate
    values: Values | None
    deletions: Sequence[Deletion]
    at: datetime


class _Ripe(NamedTuple):
    """The values of a provisional certificate whose recording's objects are absent; its form is known."""

    before: Values
    deletions: Sequence[Deletion]
    at: datetime


class _Final(NamedTuple):
    """What final certificates share if their provisional ones share a form: one of those, and the form."""

    first: DeletionCertificate
    form: Form


class _Looked(NamedTuple):
    """A page of recordings with the outcome at each one's place, and when the look that says so began and ended."""

    page: Sequence[Undeleted]
    places: Mapping[RecordingId, str]
    outcomes: Mapping[str, Sequence[Deletion] | VaultError]
    since: float
    at: datetime


class _Alike(NamedTuple):
    """Subjects whose certificates have one wording: the first, any of them by its place, and the values of all."""

    first: Subject
    subject: Callable[[int], Subject]
    columns: Callable[[], dict[str, Sequence[Any]]]


@dataclass(slots=True)
class _Progress:
    """Deletions under way; `forms` are those of final certificates, by their common parts.

    What is concluded was looked at since `since` on the monotonic clock, and was absent at `at`.
    """

    since: float
    at: datetime
    done: int = 0
    waiting: int = 0
    waits: timedelta | None = None
    absent: list[_Absent] = field(default_factory=list)
    ripe: dict[bytes, list[_Ripe]] = field(default_factory=dict)
    """By the digest of the provisional form."""
    finals: dict[bytes, _Final | None] = field(default_factory=dict)
    """By the same; None where documents must be made one by one."""
    forms: dict[tuple[object, ...], Form] = field(default_factory=dict)
    firsts: dict[bytes, AnyCertificate] = field(default_factory=dict)
    """One provisional certificate of each form; it says the same about keys and leases as the others of its form."""


class CertifierRows(
    CertifyingRows, CertificateTexts, RecordingLookup, RecordingsLookup, SettingRows, TenantLookup, Protocol
):
    """The catalog methods that issuing certificates needs."""


class Certifier:
    """Issues certificates for shreds, and deletes the objects that became unreadable."""

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
        self._wordings: dict[_Kind, _Wording] = {}
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
        alike: dict[_Kind, list[Subject]] = {}
        for each in subjects:
            alike.setdefault(_kind(each), []).append(each)
        return await self._prepare([_listed(each) for each in alike.values()], shred, receipt)

    async def prepare_due(self, lots: Sequence[Lot], shred: Shred, receipt: ShredReceipt) -> IssuedBatch | None:
        """Do what `prepare` does, of subjects that come as columns."""
        alike = [_Alike(lot.subject(0), lot.subject, lot.columns) for lot in lots if lot.recordings]
        return await self._prepare(alike, shred, receipt)

    async def _prepare(self, alike: Sequence[_Alike], shred: Shred, receipt: ShredReceipt) -> IssuedBatch | None:
        if not alike:
            return None
        self._lease_began(receipt.epoch_destroyed)
        now = self._clock.now()
        wordings = await self._word([each.first for each in alike], shred, receipt, now)

        def sign() -> IssuedBatch:
            drafts = [
                self._draft(each, wording, shred, receipt, now) for each, wording in zip(alike, wordings, strict=True)
            ]
            return self._certificates.sign(drafts, status=CertificateStatus.PROVISIONAL, at=now)

        # In a thread: a batch takes tens of milliseconds, and calls under way must not wait.
        return await in_thread(sign)

    async def store(self, issued: IssuedBatch, shred: Shred) -> int:
        """Make a prepared batch durable; recordings already certified add nothing. Returns how many it certifies."""
        await self._catalog.certify(
            issued.batch,
            issued.entries,
            forms=issued.forms,
            audit=_by_tenant("shred.done", issued, {"shred": shred.id}),
        )
        count = len(issued.entries.entries.places)
        self._metrics.certificates.labels("provisional").inc(count)
        return count

    async def _word(
        self, subjects: Sequence[Subject], shred: Shred, receipt: ShredReceipt, now: datetime
    ) -> Sequence[_Wording]:
        """Return the wording of each subject's certificate; those of the shred are kept."""
        if self._worded != shred.id:
            self._worded, self._wordings = shred.id, {}
        wordings = self._wordings
        kinds = [*map(_kind, subjects)]
        fresh = {kind: said for kind, said in zip(kinds, subjects, strict=True) if kind not in wordings}
        tenants = {tenant.id: tenant for tenant in await self._catalog.tenants()} if fresh else {}
        for kind, said in fresh.items():
            tenant = tenants[said.parts[0].coordinate.cohort.tenant]
            (identifier,) = new_ids("cert", 1, at=now, entropy=self._entropy)
            first = self._whole(said, shred, receipt, tenant, identifier, self._entropy(_NONCE_BYTES), now)
            wordings[kind] = _Wording(tenant, first, Form.of(first))
            await asyncio.sleep(0)  # one takes a millisecond, and a sweep has one for each tenant
        return [wordings[kind] for kind in kinds]

    def _draft(self, alike: _Alike, wording: _Wording, shred: Shred, receipt: ShredReceipt, now: datetime) -> Draft:
        """Return the certificates to sign of subjects that share a wording; Invalid if one contradicts itself."""
        gone = content.gone_at(shred, receipt)
        columns = alike.columns()
        count = len(columns["r"])
        columns |= self._own(count, now) | {"v": [micros(max(now, gone))] * count}
        for place in _suspicious(columns, gone):
            identifier = "cert_" + columns["c"][place].hex()
            said, nonce = alike.subject(place), columns["n"][place]
            self._whole(said, shred, receipt, wording.tenant, identifier, nonce, now)
        return Draft(wording.form, columns, wording.first.parties.tenant, wording.first.parts)

    def _whole(  # noqa: PLR0917 - what makes one certificate
        self,
        said: Subject,
        shred: Shred,
        receipt: ShredReceipt,
        tenant: Tenant,
        identifier: str,
        nonce: bytes,
        now: datetime,
    ) -> DeletionCertificate:
        """Return a provisional certificate; Invalid if it contradicts itself."""
        return content.provisional(
            said,
            shred,
            receipt,
            certificate_id=CertificateId(identifier),
            nonce=nonce.hex(),
            at=now,
            tenant=tenant,
            identity=self._identity,
        )

    # -- objects gone -------------------------------------------------------------------------------------------

    async def delete_objects(self) -> Deletions:
        """Delete the objects of shredded recordings, and certify those absent whose leases have run out.

        Deletion only waits for the store; absence is checked again once the leases are over. Metadata that went alone
        has no objects and is certified before the store is asked.
        """
        progress = _Progress(since=self._clock.monotonic(), at=self._clock.now())
        await self._list_earlier()
        await self._confirm_metadata(progress)
        async with aclosing(self._deleted()) as pages:
            async for looked in pages:
                failures = await self._conclude_page(looked, progress)
                await self._count_and_finish(len(looked.page), progress)
                failure = next(iter(failures), None)
                if isinstance(failure, Unavailable):
                    logger.warning("object deletion postponed", extra={"fields": {"reason": failure.message}})
                    break
                if failure is not None:
                    raise failure
        # Last: a row goes once its recording's list and final certificate are durable.
        await self._catalog.drop_listed()
        return Deletions(done=progress.done, waiting=progress.waiting, again_in=progress.waits)

    async def _list_earlier(self) -> None:
        """Store a list of objects for the final certificates of earlier versions, once in the life of a catalog.

        After a crash the next deletion continues with the certificates that have no list.
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
            await self._conclude_readable(page, partial(self._conclude_metadata, progress=progress))
            await self._count_and_finish(len(page), progress)
            after = page[-1].id

    async def _conclude_metadata(self, page: Sequence[Recording], progress: _Progress) -> None:
        current = await self._catalog.certificates_named(
            [row.metadata_certificate_id for row in page if row.metadata_certificate_id is not None]
        )
        of_rows = {row.id: row for row in page}
        ready = [
            _modern(opened, of_rows[certificate.recording], ())
            for certificate, opened in zip(current, await self._certificates.opened(current), strict=True)
        ]
        for opened in ready:
            self._conclude(opened, (), progress)

    async def _conclude_readable(
        self, page: Sequence[_Waiting], conclude: Callable[[Sequence[_Waiting]], Awaitable[None]]
    ) -> None:
        """Conclude a page, or nothing of it if `conclude` raises; a certificate that changed keeps back only itself."""
        try:
            await conclude(page)
        except (IntegrityError, NotFound) as error:
            if len(page) == 1:
                fields = {"recording": page[0].id, "why": error.message}
                logger.critical("a certificate changed in the catalog; it gets no final one", extra={"fields": fields})
                return
            middle = len(page) // 2
            await self._conclude_readable(page[:middle], conclude)
            await self._conclude_readable(page[middle:], conclude)

    async def _count_and_finish(self, looked_at: int, progress: _Progress) -> None:
        concluded = len(progress.absent) + sum(map(len, progress.ripe.values()))
        progress.done += concluded
        progress.waiting += looked_at - concluded
        await self._finish(progress)

    async def _deleted(self) -> AsyncGenerator[_Looked, None]:
        """Delete the objects of page after page, the next ones while the caller is busy with one.

        A page that the caller does not take is looked at again by the next deletion. Nothing outlives this iterator.
        """
        ahead: deque[asyncio.Task[_Looked]] = deque()
        page: Sequence[Undeleted] = ()
        try:
            while True:
                while len(ahead) <= _PAGES_AHEAD:
                    after = page[-1].id if page else None
                    if not (further := await self._catalog.undeleted_recordings(after=after, limit=_DELETED_AT_ONCE)):
                        break
                    page = further
                    ahead.append(asyncio.ensure_future(self._delete_page(page)))
                if not ahead:
                    return
                yield await ahead.popleft()
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    async def _delete_page(self, page: Sequence[Undeleted]) -> _Looked:
        names = await self._catalog.object_names([row.id for row in page])
        places, known = await in_thread(_laid_out, page, names)
        # Before the look: what was absent while a lease ran can have been written since.
        since = self._clock.monotonic()
        outcomes = await delete_below(self._store, known)
        return _Looked(page, places, outcomes, since, self._clock.now())

    async def _conclude_page(self, looked: _Looked, progress: _Progress) -> list[VaultError]:
        progress.since, progress.at = looked.since, looked.at
        failures: list[VaultError] = []
        absent: dict[RecordingId, Sequence[Deletion]] = {}
        for row in looked.page:
            outcome = looked.outcomes[looked.places[row.id]]
            if isinstance(outcome, VaultError):
                failures.append(outcome)
            elif all([deletion.absent for deletion in outcome]):  # noqa: C419 - a list takes half the time
                absent[row.id] = outcome
        gone = [row for row in looked.page if row.id in absent]
        await self._conclude_readable(gone, partial(self._conclude_ripe, absent=absent, progress=progress))
        return failures

    async def _conclude_ripe(
        self, page: Sequence[Undeleted], absent: Mapping[RecordingId, Sequence[Deletion]], progress: _Progress
    ) -> None:
        """Make the final certificates whose leases have run out.

        All certificates of one form wait equally long. So one document of each form is read to see how long, and the
        others are read only when they are due.
        """
        named = await self._catalog.certificates_named([row.certificate for row in page])
        current = {each.recording: each for each in named}
        firsts = {each.place.form: each for each in current.values() if each.place is not None}
        new = [each for form, each in firsts.items() if form not in progress.firsts]
        for first, document in zip(new, await self._certificates.documents(new), strict=True):
            assert first.place is not None
            progress.firsts[first.place.form] = document
        waiting = {form for form in firsts if self._waits(progress.firsts[form], progress)}
        ripe = [row for row in page if (place := current[row.id].place) is None or place.form not in waiting]
        values = await self._certificates.values([current[row.id] for row in ripe])
        known = {row.id: found for row, found in zip(ripe, values, strict=True) if found is not None}
        alone = [row for row in ripe if row.id not in known or self._shared(current[row.id], progress) is None]
        ready = await self._opened([current[row.id] for row in alone])
        for row, opened in zip(alone, ready, strict=True):
            self._conclude(opened, absent[row.id], progress)
        for recording in known.keys() - {row.id for row in alone}:
            place = current[recording].place
            assert place is not None
            ripened = _Ripe(known[recording], absent[recording], progress.at)
            progress.ripe.setdefault(place.form, []).append(ripened)

    async def _opened(self, certificates: Sequence[StoredCertificate]) -> Sequence[Opened]:
        """Return the documents in today's version; an older one is completed from its recording's rows."""
        found = [*await self._certificates.opened(certificates)]
        for place, (certificate, opened) in enumerate(zip(certificates, found, strict=True)):
            if not isinstance(opened.document, DeletionCertificate):
                row = await self._catalog.recording(certificate.recording)
                objects = await self._catalog.segments_of([row.id])
                found[place] = _modern(opened, row, objects.get(row.id, ()))
        return found

    def _shared(self, certificate: StoredCertificate, progress: _Progress) -> _Final | None:
        """Return what the final certificates of a form share; None if it has none, or its documents are to be made."""
        place = certificate.place
        assert place is not None
        if place.form not in progress.finals:
            first = progress.firsts[place.form]
            (identifier,) = new_ids("cert", 1, at=self._clock.now(), entropy=self._entropy)
            progress.finals[place.form] = _final_form(first, identifier)
        return progress.finals[place.form]

    def _conclude(self, opened: Opened, deletions: Sequence[Deletion], progress: _Progress) -> None:
        """Have the final certificate made, unless a key copy is not known to be gone or a lease may still run."""
        before = opened.document
        assert isinstance(before, DeletionCertificate)
        if not content.can_be_final(before):
            fields = {"recording": before.recording.id}
            logger.warning("a key copy is not known to be gone; no final certificate", extra={"fields": fields})
            return
        if not self._waits(before, progress):
            progress.absent.append(_Absent(before, opened.values, deletions, progress.at))

    def _waits(self, before: AnyCertificate, progress: _Progress) -> bool:
        """Tell whether only a running lease prevents the final certificate; note for how long."""
        began = self._lease_began(before.sanitisation.epoch_destroyed)
        left = content.lease_of(before) - timedelta(seconds=progress.since - began)
        if left <= timedelta(0) or not content.can_be_final(before):
            return False
        progress.waits = left if progress.waits is None else min(progress.waits, left)
        return True

    def _lease_began(self, epoch: int) -> float:
        """Return, on the monotonic clock, the latest time at which this epoch can have been destroyed.

        That is when this process first saw the destruction. Leases count from there, whatever the wall clock does.
        """
        return self._seen.setdefault(epoch, self._clock.monotonic())

    async def _finish(self, progress: _Progress) -> None:
        """Issue the final certificates of one page in one batch."""
        absent, progress.absent = progress.absent, []
        ripe, progress.ripe = progress.ripe, {}
        if not absent and not ripe:
            return
        now = self._clock.now()

        def sign() -> IssuedBatch:
            drafts: list[Draft] = []
            for form, alike in ripe.items():
                final = progress.finals[form]
                assert final is not None
                drafts.append(self._finals(final, alike, now))
            for before, values, deletions, at in absent:
                (identifier,) = new_ids("cert", 1, at=now, entropy=self._entropy)
                nonce = self._entropy(_NONCE_BYTES).hex()
                whole = content.final(before, deletions, certificate_id=identifier, nonce=nonce, at=at)
                drafts.append(_final_draft(whole, values, progress.forms))
            return self._certificates.sign(drafts, status=CertificateStatus.FINAL, at=now)

        issued = await in_thread(sign)
        await self._catalog.certify(
            issued.batch,
            issued.entries,
            forms=issued.forms,
            audit=_by_tenant("certificate.issued", issued, {}),
        )
        self._metrics.certificates.labels("final").inc(len(issued.entries.entries.places))

    def _finals(self, final: _Final, alike: Sequence[_Ripe], now: datetime) -> Draft:
        """Return the final certificates to sign whose provisional ones have one form."""
        clear = micros(final.first.sanitisation.caches_clear_at)
        columns: dict[str, Sequence[Any]] = {
            letter: [each.before[letter] for each in alike] for letter in {"r", *final.form.inherits}
        }
        columns |= self._own(len(alike), now)
        columns |= {
            "s": [each.before["c"] for each in alike],
            "v": [max(micros(each.at), each.before["v"], clear) for each in alike],
            "x": [len(each.deletions) for each in alike],
            "y": [sum(one.versions_deleted for one in each.deletions) for each in alike],
        }
        return Draft(final.form, columns, final.first.parties.tenant, final.first.parts)

    def _own(self, count: int, now: datetime) -> dict[str, Sequence[Any]]:
        """Return new ids, which begin with the millisecond of `now`, and nonces."""
        nonces = self._entropy(_NONCE_BYTES * count)
        return {
            "c": [bytes.fromhex(each[5:]) for each in new_ids("cert", count, at=now, entropy=self._entropy)],
            "n": [nonces[at : at + _NONCE_BYTES] for at in range(0, len(nonces), _NONCE_BYTES)],
        }


async def delete_below(
    store: ObjectStore, places: Mapping[str, Collection[str]]
) -> Mapping[str, Sequence[Deletion] | VaultError]:
    """Delete below each place, as the store does; what the label of an ended hold keeps loses it and is tried again.

    A label that cannot be removed keeps its object: the outcome says that it is not absent.
    """
    outcomes = dict(await store.delete_below(places))
    slots = asyncio.Semaphore(_UNLABEL_CONCURRENCY)

    async def unlabel(place: str, deletions: Sequence[Deletion]) -> None:
        async with slots:
            with suppress(Unavailable):
                for deletion in deletions:
                    with suppress(NotFound):
                        await store.set_held(deletion.name, held=False)
                again[place] = places[place]

    again: dict[str, Collection[str]] = {}
    kept = {
        place: left
        for place, outcome in outcomes.items()
        if not isinstance(outcome, VaultError) and (left := [each for each in outcome if not each.absent])
    }
    if kept:
        await asyncio.gather(*(unlabel(place, left) for place, left in kept.items()))
        outcomes |= await store.delete_below(again)
    return outcomes


def _laid_out(
    page: Sequence[Undeleted], names: Mapping[RecordingId, Sequence[str]]
) -> tuple[Mapping[RecordingId, str], Mapping[str, Sequence[str]]]:
    """Return the place of each recording's objects, and the names that are known below it."""
    places = {row.id: recording_prefix(row.tenant, row.period, row.id) for row in page}
    return places, {places[row.id]: names[row.id] for row in page}


def _modern(opened: Opened, row: Recording, objects: Sequence[SegmentRef]) -> Opened:
    """Return a provisional certificate in today's version; an older one is completed from the row."""
    before = opened.document
    if isinstance(before, DeletionCertificate):
        return opened
    said = subject(row, objects, parts=before.media.parts)
    return Opened(content.modern(before, said, object_facts(said.objects)), None)


def _listed(subjects: Sequence[Subject]) -> _Alike:
    def columns() -> dict[str, Sequence[Any]]:
        values = [*map(provisional_values, subjects)]
        return {letter: [each[letter] for each in values] for letter in values[0]}

    return _Alike(subjects[0], subjects.__getitem__, columns)


def _kind(subject: Subject) -> _Kind:
    return (
        subject.authority,
        *((part.coordinate.cohort, part.commitment is None) for part in subject.parts),
        subject.captured,
        subject.applied,
        not subject.objects,
    )


def _by_tenant(name: str, issued: IssuedBatch, detail: Mapping[str, str]) -> list[AuditEvent]:
    """Return an audit event for each tenant of a batch; the root in it covers every certificate of the batch."""
    groups, places = issued.entries.entries
    counts: Counter[TenantId] = Counter()
    for number, count in Counter([place[0] for place in places if place is not None]).items():
        counts[groups[number].tenant] += count
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


def _final_form(first: AnyCertificate, identifier: str) -> _Final | None:
    """Return what the final certificates share whose provisional ones have the form of `first`.

    None unless the form gives the document of one of them.
    """
    if not isinstance(first, DeletionCertificate) or not content.can_be_final(first):
        return None
    sample = content.final(first, (), certificate_id=identifier, nonce=first.nonce, at=content.earliest_final(first))
    form = Form.of(sample, inherits=True)
    return _Final(first, form) if form.gives(canonical_json(sample), values_of(sample), values_of(first)) else None


def _final_draft(
    certificate: DeletionCertificate, before: Values | None, forms: dict[tuple[object, ...], Form]
) -> Draft:
    """Split a final certificate into form and entry; a form in `forms` is shared only if it gives the same document."""
    values, document = values_of(certificate), canonical_json(certificate)
    key = (
        certificate.sanitisation.epoch_destroyed,
        *(part.coordinate.cohort for part in certificate.recording.parts),
        certificate.retention.captured,
        certificate.trigger,
        before is None,
    )
    form = forms.get(key)
    if form is None or not form.gives(document, values, before):
        form = Form.of(certificate, inherits=before is not None)
        if not form.gives(document, values, before):
            form = Form.of(certificate)
        forms[key] = form
    whole = {**(before or {}), **values} if form.inherits else values
    return Draft(form, {name: [value] for name, value in whole.items()}, certificate.parties.tenant, certificate.parts)


def _suspicious(values: Columns, gone: datetime) -> Iterator[int]:
    """Yield the places that need the full check: found cheaply, and always those that contradict themselves."""
    instant, captured, until = micros(gone), values["a"], values["u"]
    if max(until) > instant or any(map(gt, captured, until)):
        yield from (place for place, last in enumerate(until) if captured[place] > last or last > instant)
    for letter in COMMITMENTS:
        commitments = [each for each in values.get(letter, ()) if each is not None]
        if {*map(len, commitments)} - {_COMMITMENT_BYTES}:
            for place, commitment in enumerate(values[letter]):
                if commitment is not None and len(commitment) != _COMMITMENT_BYTES:
                    yield place
