"""Finds recordings by what only their sealed metadata says: the recorder's call key, a number, a tag.

The catalog holds blind tokens. A number is looked for as one token for each metadata cohort that still has its index.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from vault.crypto.blind import Field, token
from vault.crypto.sealed import open_facts
from vault.errors import IntegrityError, Invalid, NotFound, Shredded
from vault.ids import HoldId, RecordingId, TenantId
from vault.model import INDEX_LEAF, CallFacts, Cohort, Coordinate, DataKey, Part, Recording
from vault.ports.catalog import Catalog, RecordingQuery
from vault.ports.keys import Keyring
from vault.protocol.parties import party, read, sent

CALL_KEY = "call_key"
"""The member of a call's `extra` facts that holds the recorder's own name for it."""

_PAGE = 500
_MAX_OPENED = 20_000

logger = logging.getLogger(__name__)


def facts_of(keyring: Keyring, row: Recording) -> CallFacts | None:
    """Open the sealed facts of a recording; None once their key is gone."""
    try:
        key = keyring.derive(row.metadata)
    except Shredded:
        return None
    return open_facts(key, row.id, row.sealed_facts) if row.sealed_facts else None


def extra_of(keyring: Keyring, row: Recording) -> Mapping[str, str]:
    """Return the `extra` facts of a call; empty if they cannot be read, which must not keep a vault from starting."""
    try:
        facts = facts_of(keyring, row)
    except IntegrityError as error:
        logger.error("call facts do not open", extra={"fields": {"recording": row.id, "error": error.code}})  # noqa: TRY400  # the fact, not the trace
        return {}
    return {} if facts is None else facts.extra


class BlindIndex:
    """Computes tokens. Index keys are remembered within an epoch, and given out only while the keyring has them."""

    def __init__(self, *, keyring: Keyring) -> None:
        self._keyring = keyring
        self._epoch = keyring.epoch
        self._keys: dict[Cohort, DataKey] = {}

    def token_in(self, cohort: Cohort, field: Field, value: str) -> str:
        """Return the token of one cohort; Shredded once its index is gone."""
        return token(self._key(cohort), field, value)

    def tokens(self, tenant: TenantId, field: Field, value: str) -> tuple[str, ...]:
        """Return the tokens of every metadata cohort whose index exists."""
        return tuple(token(key, field, value) for _, key in self._live(tenant))

    def elsewhere(self, cohort: Cohort, field: Field, value: str) -> tuple[str, ...]:
        """Return the tokens of the tenant's other cohorts."""
        return tuple(token(key, field, value) for other, key in self._live(cohort.tenant) if other != cohort)

    def restored(self, row: Recording) -> Recording:
        """Return the row with the tokens of its facts: without facts if their key is gone, without tokens if those are.

        Facts that have a key and do not open stay, without tokens.
        """
        bare = replace(row, call_token=row.id, caller_token=None, called_token=None)
        try:
            facts = facts_of(self._keyring, row)
        except IntegrityError:
            return bare
        if facts is None:
            return replace(bare, sealed_facts=b"")
        values = {Field.CALL_KEY: facts.extra.get(CALL_KEY), Field.CALLER: facts.caller, Field.CALLED: facts.called}
        try:
            tokens = {
                field: self.token_in(row.metadata.cohort, field, value)
                for field, value in values.items()
                if value is not None
            }
        except Shredded:  # a hold kept the facts of a month whose index is gone
            return bare
        return replace(
            row,
            call_token=tokens.get(Field.CALL_KEY, row.id),
            caller_token=tokens.get(Field.CALLER),
            called_token=tokens.get(Field.CALLED),
        )

    def _live(self, tenant: TenantId) -> Iterator[tuple[Cohort, DataKey]]:
        for cohort in self._keyring.cohorts(tenant, Part.METADATA):
            try:
                yield cohort, self._key(cohort)
            except Shredded:
                continue  # it lives on for what holds protect; its index is gone

    def _key(self, cohort: Cohort) -> DataKey:
        place = Coordinate(cohort=cohort, leaf=INDEX_LEAF)
        if self._epoch != self._keyring.epoch:
            self._keys, self._epoch = {}, self._keyring.epoch
        known = self._keys.get(cohort)
        if known is None or not self._keyring.derivable(place):
            known = self._keys[cohort] = self._keyring.derive(place)
        return known


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a call must match: numbers in any usual spelling, and one of its tags."""

    caller: str | None = None
    called: str | None = None
    tag: str | None = None

    @property
    def fields(self) -> list[str]:
        """The names of what is searched by, for the audit trail: never the values."""
        return [name for name in ("caller", "called", "tag") if getattr(self, name) is not None]


class Search:
    """Looks recordings up by sealed facts. Who may, and that it is logged, is the caller's to see to."""

    def __init__(
        self, *, catalog: Catalog, keyring: Keyring, index: BlindIndex, region: Callable[[TenantId], Awaitable[str]]
    ) -> None:
        self._catalog = catalog
        self._region = region
        self._keyring = keyring
        self._index = index

    async def call(self, tenant: TenantId, call_key: str) -> Recording | None:
        """Return the recording a recorder means by its call key, as long as its metadata exists."""
        return await self._catalog.recording_by_call(tenant, self._index.tokens(tenant, Field.CALL_KEY, call_key))

    async def any_call(self, tenant: TenantId, call_keys: Sequence[str]) -> bool:
        """Return whether one of these call keys is a recording's, as long as its metadata exists."""
        tokens = [token for key in call_keys for token in self._index.tokens(tenant, Field.CALL_KEY, key)]
        return await self._catalog.recording_by_call(tenant, tokens) is not None

    async def page(self, query: RecordingQuery, wanted: Wanted) -> Sequence[Recording]:
        """Return one page, newest first; Invalid unless the query names a tenant."""
        tenant = query.tenant
        if tenant is None:
            raise Invalid("tenant: a search looks at one tenant", hint="say whose calls are meant")
        region = await self._region(tenant)
        wanted = replace(
            wanted, caller=_party("caller", wanted.caller, region), called=_party("called", wanted.called, region)
        )
        query = replace(
            query,
            caller_tokens=self._tokens(tenant, Field.CALLER, wanted.caller),
            called_tokens=self._tokens(tenant, Field.CALLED, wanted.called),
        )
        found = await (self._catalog.recordings(query) if wanted.tag is None else self._tagged(query, wanted.tag))
        if wanted.caller is None and wanted.called is None:
            return found
        # A month is swept when its own retention says so, perhaps before an older one.
        both = [*found, *await self._unindexed(tenant, query, wanted, region)]
        return sorted(both, key=lambda row: row.id, reverse=True)[: query.limit]

    def _tokens(self, tenant: TenantId, field: Field, number: str | None) -> tuple[str, ...] | None:
        return None if number is None else self._index.tokens(tenant, field, number)

    async def _unindexed(
        self, tenant: TenantId, query: RecordingQuery, wanted: Wanted, region: str
    ) -> Sequence[Recording]:
        """Open the facts of what holds kept when the index of its month was swept, newest first: those are few."""
        swept = {
            cohort
            for cohort in self._keyring.cohorts(tenant, Part.METADATA)
            if not self._keyring.derivable(Coordinate(cohort=cohort, leaf=INDEX_LEAF))
        }
        tags = {pin.tag for pin in self._keyring.pins(tenant) if pin.cohort in swept}
        rows: dict[RecordingId, Recording] = {}
        for tag in tags:
            with suppress(NotFound):  # a stale catalog does not know every hold
                hold = await self._catalog.hold(HoldId(f"hold_{tag.hex()}"))
                rows |= {each: await self._catalog.recording(each) for each in hold.recordings if each not in rows}
        return [
            rows[each]
            for each in sorted(rows, reverse=True)
            if rows[each].metadata.cohort in swept and self._matches(rows[each], query, wanted, region)
        ]

    def _matches(self, row: Recording, query: RecordingQuery, wanted: Wanted, region: str) -> bool:
        kept = facts_of(self._keyring, row)
        facts = None if kept is None else read(sent(kept), region)
        return (
            facts is not None
            and wanted.caller in (None, facts.caller)
            and wanted.called in (None, facts.called)
            and (wanted.tag is None or wanted.tag in facts.tags)
            and query.state in (None, row.state)
            and query.held is not False
            and query.ahead in (None, row.started_at > row.created_at)
            and (query.before is None or row.id < query.before)
            and (query.started_from is None or row.started_at >= query.started_from)
            and (query.started_to is None or row.started_at < query.started_to)
        )

    async def _tagged(self, query: RecordingQuery, tag: str) -> Sequence[Recording]:
        """Open the facts of row after row: tags have no index."""
        found: list[Recording] = []
        opened = 0
        page = replace(query, limit=_PAGE)
        while rows := await self._catalog.recordings(page):
            for row in rows:
                facts = facts_of(self._keyring, row)
                if facts is not None and tag in facts.tags:
                    found.append(row)
                if len(found) == query.limit:
                    return found
            opened += len(rows)
            if opened >= _MAX_OPENED:
                raise Invalid(
                    f"the tag is not among the newest {opened} calls that match otherwise, or fewer times than asked",
                    hint="narrow the search by time, by a number, or ask for fewer",
                )
            page = replace(page, before=rows[-1].id)
        return found


def _party(name: str, text: str | None, region: str) -> str | None:
    """Return a party as it is compared; Invalid for one that is nobody."""
    if text is None:
        return None
    value = party(text, region)
    if value is None:
        raise Invalid(f"{name}: that names no number and no other party", hint="for example +44 1632 960001")
    return value
