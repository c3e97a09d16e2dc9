"""Shred intents, receipts and certificates."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import combinations
from typing import Any

import rfc8785
import sqlalchemy as sa

from vault.certificates.attested import Subject
from vault.errors import NotFound
from vault.format import codec
from vault.ids import CertificateId, RecordingId, TenantId
from vault.model import (
    Assurance,
    AuditEvent,
    CertificateStatus,
    Part,
    Recording,
    RecordingState,
    ShredReceipt,
    StoredCertificate,
)
from vault.ports.erasures import Erasure
from vault.ports.shreds import CertificateBatch, Shred
from vault.storage.catalog import object_lists, partitions, rows
from vault.storage.catalog.database import Database, narrowed
from vault.storage.catalog.erasures import begin_erasing
from vault.storage.catalog.recording_sql import count_moved
from vault.storage.catalog.tables import (
    IS_FINISHED,
    IS_OPEN,
    NOT_CHANGED,
    certificate_batches,
    certificate_forms,
    certificates,
    recordings,
    segments,
    shred_kept,
    shreds,
    sweep_floor,
)
from vault.storage.catalog.writer import Transaction

_s, _c, _r = shreds.c, certificates.c, recordings.c
_BY_ID = sa.select(shreds).where(_s.id == sa.bindparam("key"))
_INSERT = sa.insert(shreds)
_UNFINISHED = sa.select(shreds).where(_s.finished_at.is_(None)).order_by(_s.intended_at, _s.id)
_SET_RECEIPT = (
    sa.update(shreds)
    .where(_s.id == sa.bindparam("key"), _s.receipt.is_(None))
    .values(receipt=sa.bindparam("new_receipt"))
)
_FINISH = (
    sa.update(shreds)
    .where(_s.id == sa.bindparam("key"), _s.finished_at.is_(None))
    .values(finished_at=sa.bindparam("new_finished_at"))
)
_FLOOR = sa.select(sweep_floor.c.period)
_RAISE_FLOOR = (
    sa.update(sweep_floor)
    .where(sa.or_(sweep_floor.c.period.is_(None), sweep_floor.c.period < sa.bindparam("new_period")))
    .values(period=sa.bindparam("new_period"))
)
_OPEN = sa.select(_r.id, _r.tenant, _r.audio_period, _r.metadata_period).where(IS_OPEN)
_KEEP = sa.insert(shred_kept)
_KEPT = (
    sa.select(recordings)
    .join(shred_kept, shred_kept.c.recording == _r.id)
    .where(shred_kept.c.shred == sa.bindparam("key"))
    .order_by(_r.id)
)

_FORMS = sa.select(certificate_forms).where(certificate_forms.c.digest.in_(sa.bindparam("keys", expanding=True)))
_INSERT_FORM = sa.insert(certificate_forms)
_BATCHES = sa.select(certificate_batches).where(certificate_batches.c.id.in_(sa.bindparam("keys", expanding=True)))
_INSERT_BATCH = sa.insert(certificate_batches)
_CERTIFICATES = certificates
_ANY_IN_BATCH = sa.select(_c.id).where(_c.batch == sa.bindparam("batch")).limit(1)
_DROP_BATCH = sa.delete(certificate_batches).where(certificate_batches.c.id == sa.bindparam("batch"))
_ANY_PARTS = [parts for count in range(1, len(Part) + 1) for parts in combinations(Part, count)]
_WITH_AUDIO = _c.parts.in_([rows.parts_text(parts) for parts in _ANY_PARTS if Part.AUDIO in parts])
_WITH_METADATA = _c.parts.in_([rows.parts_text(parts) for parts in _ANY_PARTS if Part.METADATA in parts])
_IN_BATCH = sa.select(_c.recording).where(
    _c.batch == sa.bindparam("batch"), _c.status == sa.bindparam("status"), _WITH_AUDIO
)
_WITH_AUDIO_IN_BATCH = sa.select(_c.recording).where(_c.batch == sa.bindparam("batch"), _WITH_AUDIO)
# By recording, status and parts, which are unique together: found by batch, each row would read the whole batch.
_OF_ROW = (
    sa.select(sa.func.max(_c.id))
    .where(_c.recording == _r.id, _c.status == sa.bindparam("status"), _WITH_AUDIO)
    .scalar_subquery()
)
# A provisional certificate that arrives after the final one is kept but changes nothing.
_SHREDDED = (
    sa.update(recordings)
    .where(_r.id.in_(_IN_BATCH), _r.state != RecordingState.SHREDDED.value)
    .values(state=RecordingState.SHREDDED.value, certificate_id=_OF_ROW, undeleted_since=sa.bindparam("at"))
)
_ABSENT = (
    sa.update(recordings)
    .where(_r.id.in_(_IN_BATCH))
    .values(state=RecordingState.SHREDDED.value, certificate_id=_OF_ROW, undeleted_since=None)
)
_OF_METADATA = sa.select(_c.id, _c.recording, _c.status, _c.parts).where(
    _c.batch == sa.bindparam("batch"), _WITH_METADATA
)
# The key is gone, so what it sealed and the tokens that found it are of use to nobody who should have them.
_FORGET: Mapping[str, Any] = {
    "metadata_certificate_id": sa.bindparam("new_certificate"),
    "call_token": sa.bindparam("new_token"),
    "caller_token": None,
    "called_token": None,
    "object_token": None,
    "sealed_facts": b"",
    "unconfirmed_since": sa.bindparam("new_unconfirmed_since"),
}
_FORGOTTEN = {
    # As for the audio, a provisional certificate after the final one changes nothing.
    CertificateStatus.PROVISIONAL: sa.update(recordings)
    .where(_r.id == sa.bindparam("key"), _r.metadata_certificate_id.is_(None))
    .values(_FORGET),
    CertificateStatus.FINAL: sa.update(recordings).where(_r.id == sa.bindparam("key")).values(_FORGET),
}
_ORDER = (_r.audio_period, _r.id)
_AFTER = sa.tuple_(sa.bindparam("after_period", type_=sa.BigInteger), sa.bindparam("after"))
_LAST = sa.tuple_(sa.bindparam("last_period", type_=sa.BigInteger), sa.bindparam("last"))
_DUE = sa.and_(IS_FINISHED, NOT_CHANGED, sa.tuple_(*_ORDER) > _AFTER, _r.audio_period <= sa.bindparam("through"))
_PERIOD = sa.select(_r.audio_period).where(_r.id == sa.bindparam("key"))
_SUBJECTS = (
    sa.select(
        *(_r.id, _r.tenant, _r.audio_period, _r.audio_generation, _r.audio_leaf, _r.audio_commitment),
        *(_r.retention_class, _r.retention_period, _r.started_at, _r.created_at, _r.retain_until),
    )
    .where(_DUE)
    .order_by(*_ORDER)
    .limit(sa.bindparam("page"))
)
_OBJECTS = (
    sa.select(segments.c.recording, segments.c.name, segments.c.object_bytes, segments.c.sha256)
    .where(
        segments.c.recording.in_(sa.select(_r.id).where(_DUE, sa.tuple_(*_ORDER) <= _LAST)),
        segments.c.audio_period.between(sa.bindparam("first_period"), sa.bindparam("last_period")),
    )
    .order_by(segments.c.recording, segments.c.number)
)
_CERTIFICATES_OF = sa.select(certificates).where(_c.recording.in_(sa.bindparam("keys", expanding=True)))
_CERTIFICATE = sa.select(certificates).where(_c.id == sa.bindparam("key"))
_CERTIFICATE_IN = _CERTIFICATE.where(_c.tenant == sa.bindparam("in_tenant"))


class ShredStore:
    """Implements `vault.ports.shreds` and `vault.ports.shreds`."""

    _database: Database

    async def intend_shred(
        self,
        shred: Shred,
        *,
        erasures: Sequence[Erasure] = (),
        spared: Sequence[RecordingId] = (),
        audit: Sequence[AuditEvent] = (),
    ) -> Sequence[Recording]:
        """Make the intent and the floor durable; return the recordings the shred must keep, as they are now."""
        values = _from_shred(shred)

        async def act(transaction: Transaction) -> Sequence[sa.Row[Any]]:
            if not await transaction.fetch(_BY_ID, {"key": shred.id}):
                await transaction.write(_INSERT, values)
                if shred.due_through is not None:
                    await transaction.write(_RAISE_FLOOR, {"new_period": shred.due_through})
                if shred.due_through is not None or shred.metadata_through or shred.drop_tenants:
                    floor = (await transaction.fetch(_FLOOR))[0].period
                    below = [row for row in await transaction.fetch(_OPEN) if _falls_under(row, shred, floor)]
                    kept = {row.id for row in below} | {rows.key(recording) for recording in spared}
                    await transaction.write(_KEEP, [{"shred": shred.id, "recording": key} for key in sorted(kept)])
                for erasure in erasures:
                    await begin_erasing(transaction, erasure, shred.id)
                transaction.audit(audit)
            return await transaction.fetch(_KEPT, {"key": shred.id})

        return [rows.to_recording(row) for row in await self._database.writer.run(act)]

    async def record_receipt(self, shred: str, receipt: ShredReceipt, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Attach the receipt; the first one stays. NotFound."""
        text = _receipt_text(receipt)

        async def act(transaction: Transaction) -> None:
            if await transaction.write(_SET_RECEIPT, {"key": shred, "new_receipt": text}):
                transaction.audit(audit)
            else:
                await _check_exists(transaction, shred)

        await self._database.writer.run(act)

    async def finish_shred(self, shred: str, *, at: datetime) -> None:
        """Mark the shred as fully certified; the first time stays. NotFound."""
        finished_at = rows.micros(at)

        async def act(transaction: Transaction) -> None:
            if not await transaction.write(_FINISH, {"key": shred, "new_finished_at": finished_at}):
                await _check_exists(transaction, shred)

        await self._database.writer.run(act)

    async def unfinished_shreds(self) -> Sequence[Shred]:
        """Return shreds without `finished_at`, oldest first."""
        return [_to_shred(row) for row in await self._database.fetch(_UNFINISHED)]

    async def due_subjects(self, *, through: int, after: RecordingId | None, limit: int) -> Sequence[Subject]:
        """Return what certificates say of finished rows of audio periods up to `through`, in their order."""
        key, period = b"", -1
        if after is not None:
            key = rows.key(after)
            period = (await self._database.fetch(_PERIOD, {"key": key}))[0].audio_period
        page = {"through": through, "after": key, "after_period": period}
        found = await self._database.fetch(_SUBJECTS, {**page, "page": max(limit, 0)})
        if not found:
            return []
        last = {"last": found[-1].id, "last_period": found[-1].audio_period, "first_period": found[0].audio_period}
        objects = await self._database.fetch(_OBJECTS, {**page, **last})
        return rows.to_subjects(found, objects)

    async def certify(
        self,
        batch: CertificateBatch,
        certificates: Sequence[StoredCertificate],
        *,
        forms: Mapping[bytes, str],
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Store a batch and update its recordings; a certificate whose status and parts exist already is dropped.

        NotFound if one names an unknown recording. If all of them existed already, nothing is written.
        """
        values = [rows.certificate_tuple(certificate) for certificate in certificates]
        place = {"batch": batch.id}
        over = [
            rows.key(each.recording)
            for each in certificates
            if each.status is CertificateStatus.FINAL and Part.AUDIO in each.parts
        ]
        metadata = any(Part.METADATA in certificate.parts for certificate in certificates)

        async def act(transaction: Transaction) -> None:
            await _write_forms(transaction, forms)
            await transaction.write(_INSERT_BATCH, rows.from_batch(batch))
            try:
                await transaction.insert_unless_there(
                    _CERTIFICATES, rows.CERTIFICATE_COLUMNS, values, unique=("recording", "status", "parts")
                )
            except sa.exc.IntegrityError as error:
                raise NotFound("a certificate names a recording that does not exist; nothing was certified") from error
            if not await transaction.fetch(_ANY_IN_BATCH, place):
                await transaction.write(_DROP_BATCH, place)
                return
            provisional, final = CertificateStatus.PROVISIONAL.value, CertificateStatus.FINAL.value
            at = rows.micros(batch.issued_at)
            await count_moved(transaction, _r.id.in_(_WITH_AUDIO_IN_BATCH), place, to=RecordingState.SHREDDED)
            await transaction.write(_SHREDDED, {**place, "status": provisional, "at": at})
            await transaction.write(_ABSENT, {**place, "status": final})
            await object_lists.fold(transaction, over)
            if metadata:
                await _forget_metadata(transaction, batch.id, at)
            transaction.audit(audit)

        if certificates:
            await self._database.writer.run(act)

    async def list_objects(self, *, after: RecordingId | None, limit: int) -> RecordingId | None:
        """Have one page of those certified for good by earlier versions keep a list; None at the end."""
        page = await object_lists.next_unlisted(self._database, b"" if after is None else rows.key(after), limit)
        if not page:
            return None
        await self._database.writer.run(lambda transaction: object_lists.fold(transaction, page))
        return rows.recording_id(page[-1])

    async def drop_listed(self) -> int:
        """Drop the rows that lists stand for, a partition at a time, where the database has partitions."""
        return await partitions.release(self._database)

    async def certificates_of(self, recordings: Sequence[RecordingId]) -> Sequence[StoredCertificate]:
        """Return every certificate of these recordings."""
        found = await self._database.fetch(_CERTIFICATES_OF, {"keys": [*map(rows.key, recordings)]})
        return [rows.to_certificate(row) for row in found]

    async def certificate_batches(self, batches: Collection[str]) -> Mapping[str, CertificateBatch]:
        """Return batches by id; NotFound if one is missing."""
        found = {row.id: rows.to_batch(row) for row in await self._database.fetch(_BATCHES, {"keys": [*batches]})}
        if missing := {*batches} - found.keys():
            raise NotFound(f"there is no certificate batch {min(missing)[:80]}")
        return found

    async def certificate_forms(self, forms: Collection[bytes]) -> Mapping[bytes, str]:
        """Return forms by digest; NotFound if one is missing."""
        found = {row.digest: row.text for row in await self._database.fetch(_FORMS, {"keys": [*forms]})}
        if missing := {*forms} - found.keys():
            raise NotFound(f"there is no certificate form {min(missing).hex()}")
        return found

    async def certificate(self, certificate: CertificateId, *, tenant: TenantId | None = None) -> StoredCertificate:
        """Return one, with `tenant` only if it is that tenant's; NotFound."""
        found = await self._database.fetch(*narrowed(_CERTIFICATE, _CERTIFICATE_IN, certificate, tenant))
        if not found:
            raise NotFound(f"there is no certificate {certificate[:80]}")
        return rows.to_certificate(found[0])

    async def certificates(
        self,
        *,
        tenant: TenantId | None = None,
        recording: RecordingId | None = None,
        before: CertificateId | None = None,
        limit: int = 100,
    ) -> Sequence[StoredCertificate]:
        """Return a page, newest id first."""
        statement = sa.select(certificates).order_by(_c.id.desc()).limit(max(limit, 0))
        if tenant is not None:
            statement = statement.where(_c.tenant == tenant)
        if recording is not None:
            statement = statement.where(_c.recording == rows.key(recording))
        if before is not None:
            statement = statement.where(_c.id < before)
        return [rows.to_certificate(row) for row in await self._database.fetch(statement)]


async def _check_exists(transaction: Transaction, shred: str) -> None:
    if not await transaction.fetch(_BY_ID, {"key": shred}):
        raise _unknown(shred)


async def _forget_metadata(transaction: Transaction, batch: str, at: int) -> None:
    """Remove the facts and tokens of the rows whose metadata this batch certifies."""
    found = await transaction.fetch(_OF_METADATA, {"batch": batch})
    for status, statement in _FORGOTTEN.items():
        provisional = status is CertificateStatus.PROVISIONAL
        moves = [
            {
                "key": row.recording,
                "new_certificate": row.id,
                "new_token": rows.recording_id(row.recording),
                # Where the audio goes too, the same certificate confirms it once the objects are absent.
                "new_unconfirmed_since": at if provisional and Part.AUDIO not in row.parts.split() else None,
            }
            for row in found
            if row.status == status.value
        ]
        await transaction.write(statement, moves)


def _falls_under(row: sa.Row[Any], shred: Shred, floor: int | None) -> bool:
    return (
        (floor is not None and row.audio_period <= floor)
        or row.tenant in shred.drop_tenants
        or shred.takes_month(row.tenant, row.metadata_period)
    )


async def _write_forms(transaction: Transaction, forms: Mapping[bytes, str]) -> None:
    """Store the forms that do not exist yet; a form is named by its content and never changes."""
    known = {row.digest for row in await transaction.fetch(_FORMS, {"keys": [*forms]})}
    fresh = [{"digest": digest, "text": text} for digest, text in forms.items() if digest not in known]
    await transaction.write(_INSERT_FORM, fresh)


def _from_shred(shred: Shred) -> rows.Values:
    return {
        "id": shred.id,
        "intended_at": rows.micros(shred.intended_at),
        "trigger": shred.trigger,
        "due_through": shred.due_through,
        "plan": codec.pack(
            {
                "changed": sorted(shred.changed),
                "drop": sorted(shred.drop_tenants),
                "metadata": dict(shred.metadata_through),
                "spared": [[tenant, month] for tenant, month in sorted(shred.spared)],
            }
        ),
        "receipt": None if shred.receipt is None else _receipt_text(shred.receipt),
        "finished_at": rows.maybe_micros(shred.finished_at),
    }


def _to_shred(row: sa.Row[Any]) -> Shred:
    plan = codec.unpack(row.plan)
    return Shred(
        id=row.id,
        intended_at=rows.moment(row.intended_at),
        trigger=row.trigger,
        due_through=row.due_through,
        metadata_through=plan.get("metadata", {}),
        spared=frozenset((TenantId(tenant), month) for tenant, month in plan.get("spared", ())),
        drop_tenants=frozenset(plan.get("drop", ())),
        changed=frozenset(plan.get("changed", ())),
        receipt=None if row.receipt is None else _receipt(row.receipt),
        finished_at=rows.maybe_moment(row.finished_at),
    )


def _receipt_text(receipt: ShredReceipt) -> str:
    return rfc8785.dumps(
        {
            "intent_id": receipt.intent_id,
            "epoch_destroyed": receipt.epoch_destroyed,
            "epoch_live": receipt.epoch_live,
            "root_version_destroyed": receipt.root_version_destroyed,
            "provider": receipt.provider,
            "assurance": receipt.assurance.value,
            "replicas": receipt.replicas,
            "unrecoverable_at": rows.micros(receipt.unrecoverable_at),
            "caches_clear_at": rows.micros(receipt.caches_clear_at),
        }
    ).decode()


def _receipt(text: str) -> ShredReceipt:
    stored = json.loads(text)
    return ShredReceipt(
        intent_id=stored["intent_id"],
        epoch_destroyed=stored["epoch_destroyed"],
        epoch_live=stored["epoch_live"],
        root_version_destroyed=stored["root_version_destroyed"],
        provider=stored["provider"],
        assurance=Assurance(stored["assurance"]),
        replicas=stored["replicas"],
        unrecoverable_at=rows.moment(stored["unrecoverable_at"]),
        caches_clear_at=rows.moment(stored["caches_clear_at"]),
    )


def _unknown(shred: str) -> NotFound:
    return NotFound(f"there is no shred {shred[:80]}")
