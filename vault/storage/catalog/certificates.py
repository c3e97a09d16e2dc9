"""Certificates: a batch is one row, with the entries of all its certificates in one value.

The id of a certificate begins with the same millisecond as its batch's, so very few batches can have it. Earlier
versions stored a row a certificate; those rows stay, and are read here beside the batches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import sqlalchemy as sa

from vault.certificates.batch import ID_BYTES, Entries
from vault.errors import Invalid, NotFound
from vault.ids import CertificateId, RecordingId, TenantId, id_bytes
from vault.model import AuditEvent, CertificateStatus, Part, RecordingState, StoredCertificate
from vault.ports.shreds import BatchEntries, CertificateBatch
from vault.storage.catalog import object_lists, partitions, rows
from vault.storage.catalog.database import Database, narrowed
from vault.storage.catalog.tables import (
    certificate_batches,
    certificate_forms,
    certificate_tenants,
    certificates,
    recordings,
)
from vault.storage.catalog.writer import Transaction
from vault.threads import in_thread

_b, _c, _r, _t = certificate_batches.c, certificates.c, recordings.c, certificate_tenants.c
_Wanted: TypeAlias = tuple[bytes, Sequence[Part], bytes]
"""The key of a recording, the parts and the entry of a certificate for it."""
_Place: TypeAlias = tuple[str, str]
"""A tenant and a state."""


class _Ready(NamedTuple):
    """A batch to be stored: what it wants, the ids of the certificates of audio each with its recording's, and rows."""

    wanted: Sequence[_Wanted]
    audio: Sequence[bytes]
    tenants: Sequence[TenantId]
    row: rows.Values


_KEYS: sa.BindParameter[Any] = sa.bindparam("keys", expanding=True)
_STAMP = len("cert_") + 12
"""The characters of an id up to the end of its millisecond."""
_BATCH_PAGE = 8

_FORMS = sa.select(certificate_forms).where(certificate_forms.c.digest.in_(_KEYS))
_INSERT_FORM = sa.insert(certificate_forms)
_BATCHES = sa.select(_b.id, _b.issued_at, _b.statement, _b.leaves).where(_b.id.in_(_KEYS))
_INSERT_BATCH = sa.insert(certificate_batches)
_INSERT_TENANT = sa.insert(certificate_tenants)
_ENTRIES = sa.select(_b.id, _b.issued_at, _b.status, _b.entries).where(_b.entries.is_not(None))
_AT = _ENTRIES.where(_b.id.between(sa.bindparam("low"), sa.bindparam("high"))).order_by(_b.id)
_ROW = (
    *("id", "tenant", "state", "certificate_id", "undeleted_since"),
    *("metadata_certificate_id", "unconfirmed_since"),
)
_TALLY: Mapping[CertificateStatus, Sequence[str]] = {
    CertificateStatus.PROVISIONAL: ("count(*) AS n", "count(certificate_id) AS certified"),
    CertificateStatus.FINAL: (
        "count(*) AS n",
        "count(certificate_id) FILTER (WHERE undeleted_since IS NULL) AS certified",
    ),
}
"""Of rows of one tenant and state: how many there are, and how many may have a certificate of the audio already."""
_DAY = f"created_at / {rows.DAY}"
_HAS_AUDIO = "state <> 'shredded'"
_HAS_FACTS = "metadata_certificate_id IS NULL AND length(sealed_facts) > 0"
_COUNTED = frozenset((Part.AUDIO, Part.METADATA))
_GONE: Mapping[frozenset[Part], Sequence[str]] = {
    frozenset(parts): ("min(created_at) AS at", f"count(*) FILTER (WHERE {last}) AS gone")
    for parts, last in (
        ((), "FALSE"),
        ((Part.AUDIO,), f"{_HAS_AUDIO} AND NOT ({_HAS_FACTS})"),
        ((Part.METADATA,), f"NOT ({_HAS_AUDIO}) AND {_HAS_FACTS}"),
        ((Part.AUDIO, Part.METADATA), f"{_HAS_AUDIO} OR {_HAS_FACTS}"),
    )
}
"""Of rows captured on one day, one of its instants, and how many have nothing left once these parts are certified."""
_CURRENT = sa.select(_r.certificate_id, _r.metadata_certificate_id).where(_r.id.in_(_KEYS))
_OLDER_OF = sa.select(certificates).where(_c.recording.in_(_KEYS))
_OLDER_NAMED = sa.select(certificates).where(_c.id.in_(_KEYS))
_OLDER = sa.select(certificates).where(_c.id == sa.bindparam("key"))
_OLDER_IN = _OLDER.where(_c.tenant == sa.bindparam("in_tenant"))
# The key is gone, so what it sealed and the tokens that found it are of use to nobody who should have them.
_FORGET = (
    sa.update(recordings)
    .where(_r.id == sa.bindparam("key"))
    .values(
        metadata_certificate_id=sa.bindparam("new_certificate"),
        call_token=sa.bindparam("new_token"),
        caller_token=None,
        called_token=None,
        object_token=None,
        sealed_facts=b"",
        unconfirmed_since=sa.bindparam("new_unconfirmed_since"),
    )
)


class CertificateStore:
    """Implements the certificates of `vault.ports.shreds`."""

    _database: Database

    async def certify(
        self,
        batch: CertificateBatch,
        entries: BatchEntries,
        *,
        forms: Mapping[bytes, str],
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Store a batch and update its recordings; a certificate that its recording has already is not issued.

        NotFound if one names an unknown recording. Nothing is written if none is issued.
        """
        # In a thread, and before the transaction: a batch has thousands, and the writer's lock is everybody's.
        ready = await in_thread(_ready, batch, entries)

        async def act(transaction: Transaction) -> None:
            issued, moving, gone = await _issued(transaction, ready, entries.status)
            if not issued:
                return
            await _write_forms(transaction, forms, batch.id)
            some = ready if issued is ready.wanted else await in_thread(_ready, batch, _only(entries, issued))
            await transaction.write(_INSERT_BATCH, some.row)
            place = id_bytes(batch.id)
            await transaction.write(_INSERT_TENANT, [{"tenant": tenant, "batch": place} for tenant in some.tenants])
            for (tenant, state), count in moving.items():
                transaction.count(tenant, state, -count)
                transaction.count(tenant, RecordingState.SHREDDED.value, count)
            for day in gone:
                transaction.count_live(day.tenant, day.at, -int(day.gone))
            await _move(transaction, some, entries.status, rows.micros(batch.issued_at))
            transaction.audit(audit)

        if ready.wanted:
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
        for each in await self._in_batches([certificate]):
            if tenant in {None, each.tenant}:
                return each
        found = await self._database.fetch(*narrowed(_OLDER, _OLDER_IN, certificate, tenant))
        if not found:
            raise NotFound(f"there is no certificate {certificate[:80]}")
        return rows.to_certificate(found[0])

    async def certificates_named(self, certificates: Collection[CertificateId]) -> Sequence[StoredCertificate]:
        """Return these; NotFound if one is missing."""
        found = await self._named(certificates)
        if missing := {*certificates} - {each.id for each in found}:
            raise NotFound(f"there is no certificate {min(missing)[:80]}")
        return found

    async def certificates_of(self, recordings: Sequence[RecordingId]) -> Sequence[StoredCertificate]:
        """Return every certificate of these recordings: what their rows name, and what that supersedes."""
        keys = {"keys": [*map(rows.key, recordings)]}
        found = {row.id: rows.to_certificate(row) for row in await self._database.fetch(_OLDER_OF, keys)}
        wanted = {name for row in await self._database.fetch(_CURRENT, keys) for name in row if name is not None}
        while wanted := wanted - found.keys():
            further = await self._in_batches(wanted)
            found |= {each.id: each for each in further}
            wanted = {each.supersedes for each in further if each.supersedes is not None}
        return [*found.values()]

    async def certificates(
        self,
        *,
        tenant: TenantId | None = None,
        recording: RecordingId | None = None,
        before: CertificateId | None = None,
        limit: int = 100,
    ) -> Sequence[StoredCertificate]:
        """Return a page, newest id first."""
        if recording is not None:
            found = [
                each
                for each in await self.certificates_of([recording])
                if tenant in {None, each.tenant} and (before is None or each.id < before)
            ]
        else:
            found = await self._older_page(tenant, before, limit)
            found += await _page(self._database, tenant, limit, newest_first=True, below=before)
        return sorted(found, key=lambda each: each.id, reverse=True)[: max(limit, 0)]

    # -- batches ------------------------------------------------------------------------------------------------

    async def _named(self, names: Collection[CertificateId]) -> list[StoredCertificate]:
        found = await self._in_batches(names)
        if missing := {*names} - {each.id for each in found}:
            older = await self._database.fetch(_OLDER_NAMED, {"keys": [*missing]})
            found += [rows.to_certificate(row) for row in older]
        return found

    async def _in_batches(self, names: Iterable[str]) -> list[StoredCertificate]:
        """Return those of these certificates that are in batches with entries."""
        among = await in_thread(_certificate_keys, names)
        found: list[StoredCertificate] = []
        for stamp in sorted({f"cert_{each.hex()}"[:_STAMP] for each in among}):
            low = "bat_" + stamp[5:]
            for row in await self._database.fetch(_AT, {"low": low, "high": low + "~"}):
                found += await in_thread(_entries_among, row, among)
        return found

    async def _older_page(
        self, tenant: TenantId | None, before: CertificateId | None, limit: int
    ) -> list[StoredCertificate]:
        statement = sa.select(certificates).order_by(_c.id.desc()).limit(max(limit, 0))
        if tenant is not None:
            statement = statement.where(_c.tenant == tenant)
        if before is not None:
            statement = statement.where(_c.id < before)
        return [rows.to_certificate(row) for row in await self._database.fetch(statement)]


def _certificate_keys(names: Iterable[str]) -> set[bytes]:
    found: set[bytes] = set()
    for name in names:
        if name.startswith("cert_"):
            with suppress(Invalid):  # what is no id names none
                found.add(id_bytes(name))
    return found


def _entries_among(row: sa.Row[Any], among: Container[bytes]) -> Sequence[StoredCertificate]:
    return rows.to_entries(row).certificates(among=among)


async def certificate_ids(
    database: Database, low: str, high: str, *, tenant: TenantId | None, limit: int
) -> Sequence[str]:
    """Return ids from `low` to `high`, oldest first."""
    older = sa.select(_c.id).where(_c.id.between(low, high)).order_by(_c.id).limit(limit)
    if tenant is not None:
        older = older.where(_c.tenant == tenant)
    found = [row.id for row in await database.fetch(older)]
    of_batches = await _page(database, tenant, limit, newest_first=False, above=low, below=high + "~")
    return sorted([*found, *(each.id for each in of_batches)])[:limit]


async def _page(
    database: Database,
    tenant: TenantId | None,
    limit: int,
    *,
    newest_first: bool,
    above: str | None = None,
    below: str | None = None,
) -> list[StoredCertificate]:
    """Return at least the first `limit` certificates above and below these ids, if there are so many, in any order."""
    low = "bat_" + (above or "cert_")[5:_STAMP].ljust(12, "0") + "0" * 20
    high = "bat_" + (below or "cert_~")[5:_STAMP].replace("~", "").ljust(12, "f") + "f" * 20
    found: list[StoredCertificate] = []
    count = 1  # a batch has thousands: the first is nearly always enough
    while page := await _next(database, tenant, low, high, count, newest_first=newest_first):
        for entries in page:
            ids = [
                name
                for name in entries.ids(tenant=tenant)
                if (below is None or name < below) and (above is None or name >= above)
            ]
            wanted = sorted(ids, reverse=newest_first)[: max(limit, 0)]
            found += entries.certificates(among={*map(id_bytes, wanted)})
        edge, stamp = int.from_bytes(id_bytes(page[-1].batch)), page[-1].batch[: _STAMP - 1]
        if newest_first:
            high = f"bat_{edge - 1:032x}"
        else:
            low = f"bat_{edge + 1:032x}"
        if len(found) >= limit:
            # Batches of one millisecond have their ids among each other, so they are read together.
            low, high = max(low, stamp + "0" * 20), min(high, stamp + "f" * 20)
        count = _BATCH_PAGE
    return found


async def _next(
    database: Database, tenant: TenantId | None, low: str, high: str, count: int, *, newest_first: bool
) -> Sequence[BatchEntries]:
    column = _b.id if tenant is None else _t.batch
    order = column.desc() if newest_first else column.asc()
    if tenant is None:
        statement = _ENTRIES.where(_b.id.between(low, high)).order_by(order).limit(count)
        return [rows.to_entries(row) for row in await database.fetch(statement)]
    mine = (
        sa.select(_t.batch)
        .where(_t.tenant == tenant, _t.batch.between(id_bytes(low), id_bytes(high)))
        .order_by(order)
        .limit(count)
    )
    names = ["bat_" + row.batch.hex() for row in await database.fetch(mine)]
    if not names:
        return []
    found = await database.fetch(_ENTRIES.where(_b.id.in_(_KEYS)), {"keys": names})
    return sorted(map(rows.to_entries, found), key=lambda each: each.batch, reverse=newest_first)


def _ready(batch: CertificateBatch, entries: BatchEntries) -> _Ready:
    """Return a batch as its transaction needs it; Invalid unless its ids begin with the batch's millisecond."""
    groups, places = entries.entries
    there = [place for place in places if place is not None]
    stamp = bytes.fromhex(batch.id[4 : _STAMP - 1])
    if not all(entry.startswith(stamp) for _, entry in there):
        raise Invalid(f"a certificate was not made in the millisecond of {batch.id}; nothing was certified")
    kinds = [group.parts for group in groups]
    used = {number for number, _ in there}
    return _Ready(
        [(entry[ID_BYTES : 2 * ID_BYTES], kinds[number], entry) for number, entry in there],
        [entry[: 2 * ID_BYTES] for number, entry in there if Part.AUDIO in kinds[number]],
        sorted({groups[number].tenant for number in used}),
        rows.from_batch(batch, entries),
    )


async def _issued(
    transaction: Transaction, ready: _Ready, status: CertificateStatus
) -> tuple[Sequence[_Wanted], Counter[_Place], Sequence[sa.Row[Any]]]:
    """Return those that their recordings do not have yet, and what is counted with them.

    That is how many audio rows leave each tenant and state, and how many recordings of each day have nothing left. Of
    two in one batch the first is returned.
    """
    wanted = ready.wanted
    keys_of = _by_parts(wanted)
    distinct = len(set().union(*keys_of.values()))
    if len(ready.audio) == len(wanted):
        # Nearly always no row has a certificate yet, and a few counts say so.
        tally = [
            row
            for gone, keys in keys_of.items()
            for row in await transaction.fetch_each(
                recordings, (*_TALLY[status], *_GONE[gone]), keys=[*keys], by=("tenant", "state", _DAY)
            )
        ]
        moving: Counter[_Place] = Counter()
        for row in tally:
            moving[row.tenant, row.state] += int(row.n)
        if distinct == moving.total() == len(wanted) and not any(row.certified for row in tally):
            return wanted, moving, tally
    every = [*{key: None for key, _, _ in wanted}]
    known = {row.id: row for row in await transaction.fetch_each(recordings, _ROW, keys=every)}
    if len(known) < distinct:
        raise NotFound("a certificate names a recording that does not exist; nothing was certified")
    found: list[_Wanted] = []
    seen: set[tuple[bytes, Part]] = set()
    for key, parts, entry in wanted:
        these = {(key, part) for part in parts}
        if seen.isdisjoint(these) and not _stands(known[key], parts, status):
            seen |= these
            found.append((key, parts, entry))
    moving = Counter((known[key].tenant, known[key].state) for key, parts, _ in found if Part.AUDIO in parts)
    days = [
        row
        for gone, keys in _by_parts(found).items()
        for row in await transaction.fetch_each(recordings, _GONE[gone], keys=[*keys], by=("tenant", _DAY))
    ]
    return found, moving, days


def _by_parts(wanted: Sequence[_Wanted]) -> Mapping[frozenset[Part], Collection[bytes]]:
    """Return the keys of recordings by the counted parts that their certificates take together."""
    kinds = {parts for _, parts, _ in wanted}
    if len(kinds) == 1:
        return {_COUNTED.intersection(*kinds): dict.fromkeys([key for key, _, _ in wanted])}
    parts_of: dict[bytes, frozenset[Part]] = {}
    for key, parts, _ in wanted:
        parts_of[key] = parts_of.get(key, frozenset()).union(_COUNTED.intersection(parts))
    keys_of: dict[frozenset[Part], list[bytes]] = {}
    for key, gone in parts_of.items():
        keys_of.setdefault(gone, []).append(key)
    return keys_of


def _stands(row: sa.Row[Any], parts: Sequence[Part], status: CertificateStatus) -> bool:
    """Tell whether the recording has a certificate of this status, or a final one, for these parts."""
    if Part.AUDIO in parts:
        final = row.certificate_id is not None and row.undeleted_since is None
        gone = row.state == RecordingState.SHREDDED.value
    else:
        final = row.metadata_certificate_id is not None and row.unconfirmed_since is None
        gone = row.metadata_certificate_id is not None
    return final or (gone and status is CertificateStatus.PROVISIONAL)


def _only(entries: BatchEntries, issued: Sequence[_Wanted]) -> BatchEntries:
    """Return the entries with None in the places of what is not issued."""
    groups, places = entries.entries
    if len(issued) == len(places):
        return entries
    kept = {id(entry) for _, _, entry in issued}
    some = [place if place is not None and id(place[1]) in kept else None for place in places]
    return replace(entries, entries=Entries(groups, some))


async def _move(transaction: Transaction, ready: _Ready, status: CertificateStatus, at: int) -> None:
    """Move the rows of what a batch certifies along."""
    provisional = status is CertificateStatus.PROVISIONAL
    await transaction.update_each(
        recordings,
        column="certificate_id",
        prefix="cert",
        named=ready.audio,
        common={
            "state": RecordingState.SHREDDED.value,
            "undeleted_since": at if provisional else None,
            "node": None,
        },
    )
    if not provisional:
        await object_lists.fold(transaction, [each[ID_BYTES:] for each in ready.audio])
    moves = [
        {
            "key": key,
            "new_certificate": _name(entry),
            "new_token": rows.own_token(key),
            # Where the audio goes too, the same certificate confirms it once the objects are absent.
            "new_unconfirmed_since": at if provisional and Part.AUDIO not in parts else None,
        }
        for key, parts, entry in ready.wanted
        if Part.METADATA in parts
    ]
    await transaction.write(_FORGET, moves)


def _name(entry: bytes) -> str:
    return "cert_" + entry[:ID_BYTES].hex()


async def _write_forms(transaction: Transaction, forms: Mapping[bytes, str], batch: str) -> None:
    """Store the forms that do not exist yet; a form is named by its content and never changes."""
    known = {row.digest for row in await transaction.fetch(_FORMS, {"keys": [*forms]})}
    fresh = [{"digest": digest, "text": text, "batch": batch} for digest, text in forms.items() if digest not in known]
    await transaction.write(_INSERT_FORM, fresh)
