"""Tenants, tokens, the audit trail, requests that carry an Idempotency-Key, and small settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from vault.certificates.audit_chain import AuditHead
from vault.errors import Conflict, NotFound, Refused
from vault.ids import HoldId, RecordingId, TenantId, TokenId
from vault.model import AuditEntry, AuditEvent, MetadataChange, RetentionChange, Role, Tenant, Token
from vault.ports.audit import AuditLine, AuditQuery
from vault.ports.repeats import Keyed
from vault.ports.revision import Revision
from vault.retention.periods import format_duration
from vault.storage.catalog import rows
from vault.storage.catalog.certificates import certificate_ids
from vault.storage.catalog.database import Database
from vault.storage.catalog.tables import (
    IS_FEW,
    IS_FEW_OF_ALL,
    IS_OF_TOKEN,
    IS_WAITING,
    MANY_EVENTS,
    OF_VAULT,
    alerts,
    audit_actor_middle,
    audit_head,
    audit_hours,
    audit_target_end,
    certificates,
    erasures,
    holds,
    keyed_requests,
    policy_requests,
    recordings,
    settings,
    tenants,
    tokens,
)
from vault.storage.catalog.tables import audit as audit_table
from vault.storage.catalog.writer import Transaction
from vault.telemetry import AUDITED

# -- tenants, tokens, the audit trail and settings ----------------------------------------------------------------

_TENANT = sa.select(tenants).where(tenants.c.id == sa.bindparam("key"))
_TENANTS = sa.select(tenants).order_by(tenants.c.id)
_INSERT_TENANT = sa.insert(tenants)
_REPLACE_TENANT = (
    sa.update(tenants)
    .where(tenants.c.id == sa.bindparam("key"))
    .values(**{column.name: sa.bindparam(f"new_{column.name}") for column in tenants.columns if column.name != "id"})
)
_HASTEN = sa.update(alerts).where(alerts.c.tenant == sa.bindparam("key"), IS_WAITING).values(next_at=0)
_TOKEN = sa.select(tokens).where(tokens.c.id == sa.bindparam("key"))
_TOKEN_NAMES = sa.select(tokens.c.id, tokens.c.name).where(tokens.c.id.in_(sa.bindparam("keys", expanding=True)))
_IDS_A_QUERY = 500
_DIGITS = 32
_BY_PREFIX: Mapping[str, sa.Table] = {
    "rec": recordings,
    "hold": holds,
    "cert": certificates,
    "era": erasures,
    "pol": policy_requests,
}
_INSERT_TOKEN = sa.insert(tokens)
_REVOKE = (
    sa.update(tokens)
    .where(tokens.c.id == sa.bindparam("key"), tokens.c.revoked_at.is_(None))
    .values(revoked_at=sa.bindparam("new_revoked_at"))
)
_OTHER_OPERATORS = (
    sa.select(tokens.c.id)
    .where(
        tokens.c.role == Role.OPERATOR.value,
        tokens.c.id != sa.bindparam("key"),
        tokens.c.revoked_at.is_(None),
        sa.or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > sa.bindparam("now")),
    )
    .limit(1)
)
_EXPORTED: Final = tuple(audit_table.c[name] for name in rows.EXPORTED)
_ENTRIES = (
    sa.select(*_EXPORTED)
    .where(audit_table.c.seq > sa.bindparam("after"))
    .order_by(audit_table.c.seq)
    .limit(sa.bindparam("page"))
)
_ENTRIES_OF = _ENTRIES.where(audit_table.c.tenant == sa.bindparam("in_tenant"))


def _whole(value: str | sa.BindParameter[str]) -> sa.Cast[str]:
    """Return a value to compare a column with whose index has an expression or a condition of that column.

    Without a type SQLite would put the value in the place of the column there, and then not find the index.
    """
    return sa.cast(value, sa.Text)


_LAST = (
    sa.select(audit_table)
    .where(
        sa.bindparam("end") == audit_target_end,
        audit_table.c.target == sa.bindparam("about"),
        # In an expression, so that no index of events is taken.
        sa.func.coalesce(audit_table.c.event, "") == sa.bindparam("name"),
    )
    # One target has few entries. The sum keeps databases from reading the whole trail backwards by the index on `seq`.
    .order_by((audit_table.c.seq + 0).desc())
    .limit(1)
)
_PLACED = (
    sa.select(audit_table.c.target, audit_table.c.actor)
    .where(
        audit_target_end.in_(sa.bindparam("ends", expanding=True)),
        audit_table.c.target.in_(sa.bindparam("keys", expanding=True)),
        audit_table.c.event.in_(("hold.placing", "hold.created")),
    )
    .order_by(audit_table.c.seq + 0)  # few holds have few entries, so the whole trail is not read in order
)
_h = audit_hours.c
_NO_ENTRY: Final = (1 << 63) - 1
_HEAD = sa.select(audit_head.c.seq, audit_head.c.sha256)
_SETTING = sa.select(settings.c.value).where(settings.c.name == sa.bindparam("key"))
_DROP_SETTING = sa.delete(settings).where(settings.c.name == sa.bindparam("key"))
_INSERT_SETTING = sa.insert(settings)


class AdminStore:
    """Implements `tenants`, `tokens`, `audit`, `settings` and `ids` of `vault.ports`."""

    _database: Database

    async def add_tenant(self, tenant: Tenant, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert; Conflict if it exists."""

        async def act(transaction: Transaction) -> None:
            if await transaction.fetch(_TENANT, {"key": tenant.id}):
                raise Conflict(f"tenant {tenant.id} exists")
            await transaction.write(_INSERT_TENANT, _from_tenant(tenant))
            transaction.audit(audit)

        await self._database.writer.run(act)

    async def revise_tenant(self, tenant: TenantId, revision: Revision[Tenant]) -> Tenant:
        """Replace the row, and make waiting alerts due if the webhook changed; NotFound."""
        return await self._database.writer.run(lambda transaction: revised_tenant(transaction, tenant, revision))

    async def tenant(self, tenant: TenantId) -> Tenant:
        """Return one; NotFound."""
        found = await self._database.fetch(_TENANT, {"key": tenant})
        if not found:
            raise NotFound(f"there is no tenant {tenant}", hint="callvault tenants list shows them")
        return _to_tenant(found[0])

    async def tenants(self) -> Sequence[Tenant]:
        """Return all, by id."""
        return [_to_tenant(row) for row in await self._database.fetch(_TENANTS)]

    async def add_token(self, token: Token, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert; Conflict if it exists, or if the token that issues it has been revoked."""

        async def act(transaction: Transaction) -> None:
            if await transaction.fetch(_TOKEN, {"key": token.id}):
                raise Conflict(f"token {token.id} exists")
            issuer = await transaction.fetch(_TOKEN, {"key": token.issued_by})
            if issuer and issuer[0].revoked_at is not None:
                raise Conflict(f"{token.issued_by} was revoked, so it can issue no token")
            await transaction.write(_INSERT_TOKEN, _from_token(token))
            transaction.audit(audit)

        await self._database.writer.run(act)

    async def token(self, token: TokenId) -> Token | None:
        """Return one, revoked ones included."""
        found = await self._database.fetch(_TOKEN, {"key": token})
        return _to_token(found[0]) if found else None

    async def token_names(self, tokens: Sequence[TokenId]) -> Mapping[TokenId, str]:
        """Return the names of those of these tokens that exist."""
        found: dict[TokenId, str] = {}
        for start in range(0, len(tokens), _IDS_A_QUERY):
            some = {"keys": list(tokens[start : start + _IDS_A_QUERY])}
            found |= {TokenId(row.id): row.name for row in await self._database.fetch(_TOKEN_NAMES, some)}
        return found

    async def placers(self, holds: Sequence[HoldId]) -> Mapping[HoldId, TokenId]:
        """Return which token placed each hold, where the audit trail has it."""
        found: dict[HoldId, TokenId] = {}
        for start in range(0, len(holds), _IDS_A_QUERY):
            keys = holds[start : start + _IDS_A_QUERY]
            some = {"keys": [*keys], "ends": [*map(rows.target_end, keys)]}
            for row in await self._database.fetch(_PLACED, some):
                actor = row.actor.partition(" ")[0]
                if actor.startswith("tok_"):
                    found.setdefault(HoldId(row.target), TokenId(actor))
        return found

    async def ids_beginning(self, beginning: str, *, tenant: TenantId | None, limit: int) -> Sequence[str]:
        """Return the ids that begin with this text, oldest first; with `tenant` only that tenant's ids."""
        prefix, _, digits = beginning.partition("_")
        table = _BY_PREFIX.get(prefix)
        if table is None:
            return []
        low, high = (f"{prefix}_{digits.ljust(_DIGITS, fill)}" for fill in "0f")
        if table is certificates:
            return await certificate_ids(self._database, low, high, tenant=tenant, limit=limit)
        bounds = (rows.key(RecordingId(low)), rows.key(RecordingId(high))) if table is recordings else (low, high)
        statement = sa.select(table.c.id).where(table.c.id.between(*bounds)).order_by(table.c.id).limit(limit)
        if tenant is not None:
            statement = statement.where(table.c.tenant == tenant)
        found = await self._database.fetch(statement)
        return [rows.recording_id(row.id) if table is recordings else row.id for row in found]

    async def tokens(self, *, tenant: TenantId | None = None, expiring_by: datetime | None = None) -> Sequence[Token]:
        """Return all or a tenant's, oldest first; with `expiring_by` only unrevoked ones that expire by then."""
        statement = sa.select(tokens).order_by(tokens.c.created_at, tokens.c.id)
        if tenant is not None:
            statement = statement.where(tokens.c.tenant == tenant)
        if expiring_by is not None:
            statement = statement.where(tokens.c.revoked_at.is_(None), tokens.c.expires_at <= rows.micros(expiring_by))
        return [_to_token(row) for row in await self._database.fetch(statement)]

    async def revoke_token(self, token: TokenId, *, at: datetime, audit: Sequence[AuditEvent] = ()) -> None:
        """Revoke; NotFound. Revoking again keeps the first time and is not audited.

        Conflict for the last operator's token in force.
        """

        async def act(transaction: Transaction) -> None:
            found = await transaction.fetch(_TOKEN, {"key": token})
            if found and found[0].role == Role.OPERATOR.value and found[0].revoked_at is None:
                others = await transaction.fetch(_OTHER_OPERATORS, {"key": token, "now": rows.micros(at)})
                if not others:
                    raise Conflict(
                        "this is the last operator's token, and a vault needs one",
                        hint="issue another one first; the owner of the vault's files can: "
                        "callvault tokens issue --role operator --name NAME --config config.toml",
                    )
            if await transaction.write(_REVOKE, {"key": token, "new_revoked_at": rows.micros(at)}):
                transaction.audit(audit)
            elif not found:
                raise NotFound(f"there is no token {token[:80]}")

        await self._database.writer.run(act)

    async def append_audit(self, events: Sequence[AuditEvent]) -> None:
        """Write the events, numbered without gaps and hash-chained."""
        if events:
            await self._database.writer.submit(_append, tuple(events))

    async def audit_lines(self, query: AuditQuery) -> Sequence[AuditLine]:
        """Return one page of the entries that match, as they are exported."""
        filters = (query.target, query.actor, query.event, query.since, query.until)
        if query.newest_first or any(each is not None for each in filters):
            return rows.to_audit_lines(await self._database.fetch(_matching(query)))
        place = {"after": query.beyond or 0, "page": max(query.limit, 0)}
        if query.tenant is None:
            return rows.to_audit_lines(await self._database.fetch(_ENTRIES, place))
        return rows.to_audit_lines(await self._database.fetch(_ENTRIES_OF, {**place, "in_tenant": query.tenant}))

    async def audit_found(self, query: AuditQuery) -> Sequence[AuditEntry]:
        """Return one page of the entries that match."""
        return [rows.to_audit(row) for row in await self._database.fetch(_matching(query))]

    async def last_audited(self, event: str, target: str) -> AuditEntry | None:
        """Return the newest entry of this event at this target."""
        found = await self._database.fetch(_LAST, {"name": event, "about": target, "end": rows.target_end(target)})
        return rows.to_audit(found[0]) if found else None

    async def audit_head(self) -> AuditHead:
        """Return the last entry's number and hash, or the genesis of an empty trail."""
        found = await self._database.fetch(_HEAD)
        return AuditHead(seq=found[0].seq, sha256=found[0].sha256.hex())

    async def setting(self, name: str) -> str | None:
        """Return a small setting of the vault."""
        found = await self._database.fetch(_SETTING, {"key": name})
        return found[0].value if found else None

    async def save_setting(self, name: str, value: str) -> None:
        """Insert or replace a small setting."""

        async def act(transaction: Transaction) -> None:
            await transaction.write(_DROP_SETTING, {"key": name})
            await transaction.write(_INSERT_SETTING, {"name": name, "value": value})

        await self._database.writer.run(act)


def _matching(query: AuditQuery) -> sa.Select[Any]:
    """Select a page of the trail.

    The first of target, actor, and tenant with event that the query names finds the entries, in their order. The other
    conditions are wrapped in expressions, so that a database without statistics does not choose an index that finds
    more.
    """
    if (names := _family(query)) is not None:
        return _merged(query, names)
    table = audit_table.c
    statement = sa.select(*_EXPORTED).limit(max(query.limit, 0))
    statement = statement.order_by(table.seq.desc() if query.newest_first else table.seq)
    found = False
    if query.target is not None:
        statement = statement.where(
            audit_target_end == rows.target_end(query.target), table.target == _whole(query.target)
        )
        found = True
    if query.actor is not None:
        if not found and query.actor != OF_VAULT:
            statement = statement.where(IS_OF_TOKEN, audit_actor_middle == rows.actor_middle(query.actor))
            found = True
        statement = statement.where(table.actor == _whole(query.actor))
    if query.tenant is not None:
        statement = statement.where((sa.func.coalesce(table.tenant, "") if found else table.tenant) == query.tenant)
    if query.event is not None and "." not in query.event:
        statement = statement.where(table.event.startswith(f"{query.event}.", autoescape=True))
    elif query.event is not None:
        statement = statement.where(table.event == _whole(query.event))
        if not found and query.event not in MANY_EVENTS:
            statement = statement.where(IS_FEW_OF_ALL if query.tenant is None else IS_FEW)
    if query.beyond is not None:
        statement = statement.where(table.seq < query.beyond if query.newest_first else table.seq > query.beyond)
    return statement.where(*_window(query))


def _family(query: AuditQuery) -> Sequence[str] | None:
    """Return the events that the query means, if it names the part before their full stop and indexes have all of them.

    None if something else finds the entries, or every recording has one of them.
    """
    if query.event is None or "." in query.event or query.target is not None or query.actor not in {None, OF_VAULT}:
        return None
    names = [each for each in AUDITED if each.startswith(f"{query.event}.")]
    return None if not names or any(each in MANY_EVENTS for each in names) else names


def _merged(query: AuditQuery, names: Sequence[str]) -> sa.Select[Any]:
    """Select a page of these events, from a page of each: an index has the entries of one event in their order."""
    pages = [_matching(replace(query, event=name)).subquery() for name in names]
    found = sa.union_all(*(sa.select(page) for page in pages)).subquery()
    order = found.c.seq.desc() if query.newest_first else found.c.seq
    return sa.select(found).order_by(order).limit(max(query.limit, 0))


def _window(query: AuditQuery) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions of the time asked for.

    Numbers rise with time, unless the clock was put back. `audit_hours` has the first and the last number that can be
    meant; an entry between them may still be of another time.
    """
    at, seq = audit_table.c.at, audit_table.c.seq
    since = None if query.since is None else rows.micros(query.since)
    until = None if query.until is None else rows.micros(query.until)
    if since is not None:
        yield at >= since
    if until is not None:
        yield at < until
    if query.target is not None or (since is None and until is None):
        return
    meant = sa.select(_h.first)
    if since is not None:
        meant = meant.where(_h.hour >= since // rows.HOUR)
    if until is not None:
        meant = meant.where(_h.hour <= (until - 1) // rows.HOUR)
    last = sa.func.coalesce(meant.order_by(_h.first.desc()).limit(1).scalar_subquery(), _NO_ENTRY)
    end = sa.select(_h.first).where(_h.first > last).order_by(_h.first).limit(1)
    # Of one event only where the page begins: with both, SQLite would read all events of the tenant there.
    is_all = query.event is None or "." not in query.event
    if is_all or not query.newest_first:
        yield seq >= meant.order_by(_h.first).limit(1).scalar_subquery()
    if is_all or query.newest_first:
        yield seq < sa.func.coalesce(end.scalar_subquery(), _NO_ENTRY)


async def _append(transaction: Transaction, batches: Sequence[Sequence[AuditEvent]]) -> Sequence[Refused | None]:
    for events in batches:
        transaction.audit(events)
    return [None] * len(batches)


async def revised_tenant(transaction: Transaction, tenant: TenantId, revision: Revision[Tenant]) -> Tenant:
    """Replace the tenant as `revision` says within a transaction; NotFound."""
    found = await transaction.fetch(_TENANT, {"key": tenant})
    if not found:
        raise NotFound(f"there is no tenant {tenant}", hint="callvault tenants list shows them")
    before = _to_tenant(found[0])
    after, audit = revision(before)
    if after != before:
        values = {f"new_{name}": value for name, value in _from_tenant(after).items() if name != "id"}
        await transaction.write(_REPLACE_TENANT, {"key": tenant, **values})
    if after.safeguarding_webhook != before.safeguarding_webhook:
        await transaction.write(_HASTEN, {"key": tenant})
    transaction.audit(audit)
    return after


def _change_text(change: MetadataChange) -> str:
    return json.dumps({"request": change.request, "through": change.through, "retention": change.retention})


def _to_change(stored: dict[str, Any]) -> MetadataChange:
    kept = stored["retention"] if "retention" in stored else stored["seconds"]
    return MetadataChange(request=stored["request"], through=stored["through"], retention=_period(kept))


def _period(stored: str | float | None) -> str | None:
    """Return a period as text; rows older than text periods have seconds."""
    return format_duration(timedelta(seconds=stored)) if isinstance(stored, int | float) else stored


def _retention_text(change: RetentionChange) -> str:
    moments = {"through": rows.micros(change.through), "since": rows.micros(change.since)}
    return json.dumps({**asdict(change), **moments})


def _to_retention(stored: dict[str, Any]) -> RetentionChange:
    moments = {name: rows.moment(stored[name]) for name in ("through", "since")}
    return RetentionChange(**{**stored, **moments})


def _from_tenant(tenant: Tenant) -> rows.Values:
    return {
        "id": tenant.id,
        "name": tenant.name,
        "controller": tenant.controller,
        "contact": tenant.contact,
        "created_at": rows.micros(tenant.created_at),
        "retention": tenant.retention,
        "metadata_retention": tenant.metadata_retention,
        "metadata_before": json.dumps(tenant.metadata_before),
        "metadata_changed": None if tenant.metadata_changed is None else _change_text(tenant.metadata_changed),
        "retention_changed": None if tenant.retention_changed is None else _retention_text(tenant.retention_changed),
        "retention_changed_through": None
        if tenant.retention_changed is None
        else rows.micros(tenant.retention_changed.through),
        "contract_end": rows.maybe_micros(tenant.contract_end),
        "offboard_requested_by": tenant.offboard_requested_by,
        "offboard_approved_by": tenant.offboard_approved_by,
        "offboard_approved_at": rows.maybe_micros(tenant.offboard_approved_at),
        "numbering_region": tenant.numbering_region,
        "keep_dtmf": tenant.keep_dtmf,
        "safeguarding_webhook": tenant.safeguarding_webhook,
        "origins": " ".join(tenant.origins),
    }


def _to_tenant(row: sa.Row[Any]) -> Tenant:
    return Tenant(
        id=TenantId(row.id),
        name=row.name,
        controller=row.controller,
        contact=row.contact,
        created_at=rows.moment(row.created_at),
        retention=row.retention,
        metadata_retention=row.metadata_retention,
        metadata_before=tuple((through, _period(kept)) for through, kept in json.loads(row.metadata_before)),
        metadata_changed=None if row.metadata_changed is None else _to_change(json.loads(row.metadata_changed)),
        retention_changed=None if row.retention_changed is None else _to_retention(json.loads(row.retention_changed)),
        contract_end=rows.maybe_moment(row.contract_end),
        offboard_requested_by=row.offboard_requested_by,
        offboard_approved_by=row.offboard_approved_by,
        offboard_approved_at=rows.maybe_moment(row.offboard_approved_at),
        numbering_region=row.numbering_region,
        keep_dtmf=bool(row.keep_dtmf),
        safeguarding_webhook=row.safeguarding_webhook,
        origins=tuple(row.origins.split()),
    )


def _from_token(token: Token) -> rows.Values:
    return {
        "id": token.id,
        "name": token.name,
        "role": token.role.value,
        "tenant": token.tenant,
        "secret_sha256": token.secret_sha256,
        "created_at": rows.micros(token.created_at),
        "revoked_at": rows.maybe_micros(token.revoked_at),
        "sealed_secret": token.sealed_secret,
        "imports_until": rows.maybe_micros(token.imports_until),
        "issued_by": token.issued_by,
        "expires_at": rows.maybe_micros(token.expires_at),
    }


def _to_token(row: sa.Row[Any]) -> Token:
    return Token(
        id=TokenId(row.id),
        name=row.name,
        role=Role(row.role),
        tenant=row.tenant,
        secret_sha256=row.secret_sha256,
        created_at=rows.moment(row.created_at),
        revoked_at=rows.maybe_moment(row.revoked_at),
        sealed_secret=row.sealed_secret,
        imports_until=rows.maybe_moment(row.imports_until),
        issued_by=None if row.issued_by is None else TokenId(row.issued_by),
        expires_at=rows.maybe_moment(row.expires_at),
    )


# -- requests with an Idempotency-Key -----------------------------------------------------------------------------

_k = keyed_requests.c
_ITS_KEY: Final = (_k.token == sa.bindparam("its_token"), _k.key == sa.bindparam("its_key"))
_ITS_ATTEMPT: Final = (*_ITS_KEY, _k.attempt == sa.bindparam("its_attempt"))
_FORGET = sa.delete(keyed_requests).where(_k.created_at < sa.bindparam("before"))
_TAKE_OVER = (
    sa.update(keyed_requests)
    .where(
        *_ITS_KEY, _k.request == sa.bindparam("its_request"), _k.status.is_(None), _k.until <= sa.bindparam("its_now")
    )
    .values(attempt=sa.bindparam("new_attempt"), until=sa.bindparam("new_until"))
)
_FIND = sa.select(keyed_requests).where(*_ITS_KEY)
_SETTLE = (
    sa.update(keyed_requests)
    .where(*_ITS_ATTEMPT)
    .values(status=sa.bindparam("new_status"), answer=sa.bindparam("new_answer"))
)
_DROP = sa.delete(keyed_requests).where(*_ITS_ATTEMPT, _k.effect.is_(sa.false()))
_LEAVE = sa.update(keyed_requests).where(*_ITS_ATTEMPT).values(until=sa.bindparam("new_until"))
_RENEW = _LEAVE.where(_k.status.is_(None))


class RepeatStore:
    """Implements `vault.ports.repeats.KeyedRows`."""

    _database: Database

    async def claim_request(self, asked: Keyed, *, now: datetime, forget_before: datetime) -> Keyed:
        """Insert the request, take it over, or return the existing one."""

        async def act(transaction: Transaction) -> Keyed:
            await transaction.write(_FORGET, {"before": rows.micros(forget_before)})
            columns = ("token", "key", "request", "attempt", "created_at", "until", "effect")
            values = (
                asked.token,
                asked.key,
                asked.request,
                asked.attempt,
                rows.micros(asked.created_at),
                rows.micros(asked.until),
                False,
            )
            await transaction.insert_unless_there(keyed_requests, columns, [values], unique=("token", "key"))
            taking = {
                **_place(asked),
                "its_request": asked.request,
                "its_now": rows.micros(now),
                "new_attempt": asked.attempt,
                "new_until": rows.micros(asked.until),
            }
            await transaction.write(_TAKE_OVER, taking)
            return _to_keyed((await transaction.fetch(_FIND, _place(asked)))[0])

        return await self._database.writer.run(act, beside=True)

    async def renew_request(self, keyed: Keyed, *, until: datetime) -> None:
        """Move the instant of the attempt."""
        values = {**_place(keyed), "its_attempt": keyed.attempt, "new_until": rows.micros(until)}

        async def act(transaction: Transaction) -> None:
            await transaction.write(_RENEW, values)

        await self._database.writer.run(act, beside=True)

    async def settle_request(self, keyed: Keyed, *, status: int, answer: bytes) -> None:
        """Store the answer."""
        values = {**_place(keyed), "its_attempt": keyed.attempt, "new_status": status, "new_answer": answer}

        async def act(transaction: Transaction) -> None:
            await transaction.write(_SETTLE, values)

        await self._database.writer.run(act, beside=True)

    async def leave_request(self, keyed: Keyed, *, at: datetime) -> None:
        """Remove the request, or let another attempt take it over."""
        place = {**_place(keyed), "its_attempt": keyed.attempt}

        async def act(transaction: Transaction) -> None:
            if not await transaction.write(_DROP, place):
                await transaction.write(_LEAVE, {**place, "new_until": rows.micros(at)})

        await self._database.writer.run(act, beside=True)


def _place(keyed: Keyed) -> dict[str, Any]:
    return {"its_token": keyed.token, "its_key": keyed.key}


def _to_keyed(row: sa.Row[Any]) -> Keyed:
    return Keyed(
        token=TokenId(row.token),
        key=row.key,
        request=row.request,
        attempt=row.attempt,
        created_at=rows.moment(row.created_at),
        until=rows.moment(row.until),
        effect=row.effect,
        target=row.target,
        status=row.status,
        answer=row.answer,
    )
