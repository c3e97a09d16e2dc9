"""The sealed facts of calls, and searches by them: by the recorder's call key, a number or a tag.

The catalog has only blind tokens of such facts. A search for a number looks for its token of each metadata cohort whose
index still exists.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Protocol

from vault.crypto.sealed import open_facts
from vault.crypto.values import Field, token
from vault.errors import IntegrityError, Invalid, Shredded
from vault.ids import HoldId, TenantId, call_key_of, call_name, call_number
from vault.model import INDEX_LEAF, CallFacts, Cohort, Coordinate, DataKey, Part, Recording
from vault.ports.keys import Keyring
from vault.ports.recordings import RecordingQuery, RecordingSearch
from vault.protocol.facts.parties import ANONYMOUS, former_spellings, party, reread_parties

# -- the vault's own members of a call's `extra` facts ------------------------------------------------------------

CALL_KEY = "call_key"
"""The recorder's own name for the call."""
S3_KEY = "s3_key"
"""The call's S3 object key, if that is not its call key."""
TOTAL = "upload_length"
"""How many bytes a resumable upload will have, see `CallStart.total`."""
GRACE = "grace_seconds"
"""How long an interrupted recording waits for its recorder, see `CallStart.grace`."""
STATED_START = "stated_start"
"""A start that the recorder stated and that the vault replaced because it cannot be true."""
BEGUN_BY = "begun_by"
"""The id of the token that began the call."""
LEFT_OUT = "facts_left_out"
"""Which stated facts were not kept, and why."""
FRAMES_LEFT_OUT = "frames_left_out"
"""How many frames of the call's streams could not be read, and why."""
_RESERVED = frozenset({TOTAL, GRACE, STATED_START, BEGUN_BY, S3_KEY, LEFT_OUT, FRAMES_LEFT_OUT})


def stated(facts: CallFacts) -> CallFacts:
    """Return a recorder's facts without extras that have a name of the vault's own; `LEFT_OUT` names unusable facts."""
    extra = {name: text for name, text in facts.extra.items() if name not in _RESERVED}
    if facts.unusable:
        extra[LEFT_OUT] = ", ".join(f"{name} ({why})" for name, why in facts.unusable.items())
    return replace(facts, extra=extra)


# -- searching ----------------------------------------------------------------------------------------------------

_MOST_OBJECTS = 20
_PAGE = 500
_MAX_OPENED = 20_000
_LEGS = 16
"""How many recordings of one call a search by its call key finds."""

logger = logging.getLogger(__name__)


def facts_of(keyring: Keyring, row: Recording) -> CallFacts | None:
    """Return the sealed facts of a recording; None once their key is gone."""
    try:
        key = keyring.derive(row.metadata)
    except Shredded:
        return None
    return open_facts(key, row.id, row.sealed_facts) if row.sealed_facts else None


def extra_of(keyring: Keyring, row: Recording) -> Mapping[str, str]:
    """Return the `extra` facts of a call; empty if they cannot be read, so that a vault can start."""
    try:
        facts = facts_of(keyring, row)
    except IntegrityError as error:
        logger.error("call facts do not open", extra={"fields": {"recording": row.id, "error": error.code}})  # noqa: TRY400  # the fact, not the trace
        return {}
    return {} if facts is None else facts.extra


class BlindIndex:
    """Computes blind tokens. Index keys are cached for an epoch, and used only while the keyring has them."""

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
        """Return the row with the tokens of its facts.

        If the key of the facts is gone, the row has no facts; if the index is gone, it has no tokens. Facts that their
        key does not open stay, without tokens.
        """
        bare = replace(row, call_token=row.id, caller_token=None, called_token=None, object_token=None)
        try:
            facts = facts_of(self._keyring, row)
        except IntegrityError:
            return bare
        if facts is None:
            return replace(bare, sealed_facts=b"")
        values = {
            Field.CALL_KEY: facts.extra.get(CALL_KEY),
            Field.CALLER: facts.caller,
            Field.CALLED: facts.called,
            Field.OBJECT_KEY: facts.extra.get(S3_KEY),
        }
        try:
            tokens = {
                field: self.token_in(row.metadata.cohort, field, value)
                for field, value in values.items()
                if value is not None
            }
        except Shredded:  # a hold keeps the facts, but the month's index is gone
            return bare
        return replace(
            row,
            call_token=tokens.get(Field.CALL_KEY, row.id),
            caller_token=tokens.get(Field.CALLER),
            called_token=tokens.get(Field.CALLED),
            object_token=tokens.get(Field.OBJECT_KEY),
        )

    def _live(self, tenant: TenantId) -> Iterator[tuple[Cohort, DataKey]]:
        for cohort in self._keyring.cohorts(tenant, Part.METADATA):
            try:
                yield cohort, self._key(cohort)
            except Shredded:
                continue  # a pin keeps the cohort; its index is gone

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
    """What a call must match: numbers in any usual spelling, its call key, a tag, a direction.

    `agent` is the party on the tenant's side: the called party of an inbound call, the caller of an outbound one,
    either party if the direction is unknown.
    """

    call_key: str | None = None
    caller: str | None = None
    called: str | None = None
    agent: str | None = None
    direction: str | None = None
    tag: str | None = None

    @property
    def fields(self) -> list[str]:
        """The names of the searched fields, for the audit trail, without values."""
        return [each.name for each in fields(self) if getattr(self, each.name) is not None]

    @property
    def opens(self) -> bool:
        """Whether the facts of rows must be opened: tags and directions have no index."""
        return self.tag is not None or self.direction is not None or self.agent is not None

    @property
    def parties(self) -> bool:
        """Whether it names a party, which each region may spell differently."""
        return any(each is not None for each in (self.caller, self.called, self.agent))

    @property
    def indexed(self) -> bool:
        """Whether an index narrows the search."""
        return self.call_key is not None or self.parties


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sought:
    """The wanted facts, with each party in the spellings of every region that the tenant had."""

    wanted: Wanted
    regions: Sequence[str]
    call_key: str | None
    caller: Sequence[str] | None
    called: Sequence[str] | None
    agent: Sequence[str] | None

    @classmethod
    def of(cls, wanted: Wanted, regions: Sequence[str]) -> _Sought:
        """Read the parties in each region, the present one first; Invalid for text that is no party."""
        return cls(
            wanted=wanted,
            regions=regions,
            call_key=None if wanted.call_key is None else call_key_of(wanted.call_key),
            caller=_spellings("caller", wanted.caller, regions),
            called=_spellings("called", wanted.called, regions),
            agent=_spellings("agent", wanted.agent, regions),
        )

    def match(self, kept: CallFacts) -> bool:
        """Tell whether the facts of a call match, with its parties read in one of the regions."""
        return self._match(kept) and (
            not self.wanted.parties or any(self._has_parties(reread_parties(kept, region)) for region in self.regions)
        )

    def _match(self, facts: CallFacts) -> bool:
        key = facts.extra.get(CALL_KEY)
        return (
            (self.call_key is None or (key is not None and self.call_key in (key, call_number(key)[0])))
            and self.wanted.direction in (None, facts.direction)
            and (self.wanted.tag is None or self.wanted.tag in facts.tags)
        )

    def _has_parties(self, facts: CallFacts) -> bool:
        return (
            (self.caller is None or facts.caller in self.caller)
            and (self.called is None or facts.called in self.called)
            and (self.agent is None or not {*self.agent}.isdisjoint(_agents(facts)))
        )


def _agents(facts: CallFacts) -> tuple[str | None, ...]:
    """Return the parties on the tenant's side of the call."""
    sides = {"inbound": (facts.called,), "outbound": (facts.caller,)}
    return sides.get(facts.direction or "", (facts.caller, facts.called))


class SearchRows(RecordingSearch, Protocol):
    """The catalog methods that searching needs."""


class Search:
    """Looks recordings up by sealed facts. The caller authorises and logs the search."""

    def __init__(
        self,
        *,
        catalog: SearchRows,
        keyring: Keyring,
        index: BlindIndex,
        regions: Callable[[TenantId], Awaitable[Sequence[str]]],
    ) -> None:
        self._catalog = catalog
        self._regions = regions
        self._keyring = keyring
        self._index = index

    async def call(self, tenant: TenantId, call_key: str) -> Recording | None:
        """Return the recording with the recorder's call key, as long as its metadata exists."""
        return await self._catalog.recording_by_call(tenant, self._index.tokens(tenant, Field.CALL_KEY, call_key))

    async def object(self, tenant: TenantId, key: str) -> Sequence[Recording]:
        """Return the newest recordings with an S3 object key that is not their call key, newest first."""
        tokens = self._index.tokens(tenant, Field.OBJECT_KEY, key)
        return await self._catalog.recordings_by_object(tenant, tokens, limit=_MOST_OBJECTS)

    async def any_call(self, tenant: TenantId, call_keys: Sequence[str]) -> bool:
        """Tell whether a recording, as long as its metadata exists, has one of these call keys."""
        tokens = [token for key in call_keys for token in self._index.tokens(tenant, Field.CALL_KEY, key)]
        return await self._catalog.recording_by_call(tenant, tokens) is not None

    async def page(self, query: RecordingQuery, wanted: Wanted) -> Sequence[Recording]:
        """Return one page in the order of the query; Invalid unless it names a tenant."""
        tenant = query.tenant
        if tenant is None:
            raise Invalid("tenant: a search needs a tenant", hint="name the tenant to search")
        # Earlier regions are read from the audit trail, which takes time: only if a party is searched.
        sought = _Sought.of(wanted, await self._regions(tenant) if wanted.parties else ())
        caller, called = (self._tokens(tenant, each, sought.agent) for each in (Field.CALLER, Field.CALLED))
        query = replace(
            query,
            call_tokens=self._legs(tenant, sought.call_key),
            caller_tokens=self._tokens(tenant, Field.CALLER, sought.caller),
            called_tokens=self._tokens(tenant, Field.CALLED, sought.called),
            agent_tokens=None if caller is None or called is None else (caller, called),
        )
        found = await (self._opened(query, sought) if wanted.opens else self._catalog.recordings(query))
        if not wanted.indexed:
            return found
        # Each month of metadata has its own retention, so a month may be swept before an older one.
        both = [*found, *await self._unindexed(tenant, query, sought)]
        ordered = sorted(both, key=lambda row: (row.retain_until if query.by_expiry else row.started_at, row.id))
        return (ordered if query.by_expiry else ordered[::-1])[: query.limit]

    def _legs(self, tenant: TenantId, call_key: str | None) -> tuple[str, ...] | None:
        """Return the tokens of the names of a call: `key`, `key~2` and so on."""
        if call_key is None:
            return None
        names = (call_name(call_key, number) for number in range(1, _LEGS + 1))
        with suppress(Invalid):  # a name too long for a number after it
            return tuple(token for name in names for token in self._index.tokens(tenant, Field.CALL_KEY, name))
        return self._index.tokens(tenant, Field.CALL_KEY, call_key)

    def _tokens(self, tenant: TenantId, field: Field, spellings: Sequence[str] | None) -> tuple[str, ...] | None:
        if spellings is None:
            return None
        return tuple(token for each in spellings for token in self._index.tokens(tenant, field, each))

    async def _unindexed(self, tenant: TenantId, query: RecordingQuery, sought: _Sought) -> Sequence[Recording]:
        """Search, newest first, the few recordings that holds keep although their month's index was swept."""
        swept = {
            cohort
            for cohort in self._keyring.cohorts(tenant, Part.METADATA)
            if not self._keyring.derivable(Coordinate(cohort=cohort, leaf=INDEX_LEAF))
        }
        held = self._keyring.tags(tenant, within=swept)
        if not held:
            return []
        query = replace(
            query,
            call_tokens=None,
            caller_tokens=None,
            called_tokens=None,
            agent_tokens=None,
            under=tuple(HoldId(f"hold_{tag.hex()}") for tag in held),
            metadata_of=tuple((cohort.period, cohort.generation) for cohort in swept),
        )
        return await self._opened(query, sought)

    def _match(self, row: Recording, sought: _Sought) -> bool:
        kept = facts_of(self._keyring, row)
        return kept is not None and sought.match(kept)

    async def _opened(self, query: RecordingQuery, sought: _Sought) -> Sequence[Recording]:
        """Search by opening the facts of one row after another."""
        found: list[Recording] = []
        opened = 0
        page = replace(query, limit=_PAGE)
        while rows := await self._catalog.recordings(page):
            for row in rows:
                if self._match(row, sought):
                    found.append(row)
                if len(found) == query.limit:
                    return found
            opened += len(rows)
            if opened >= _MAX_OPENED:
                asked = " and ".join(sought.wanted.fields)
                raise Invalid(
                    f"{asked}: too few matches among the first {opened} calls that match otherwise",
                    hint="narrow the search by time or by a number, or ask for a smaller page",
                )
            page = replace(page, before=rows[-1].id)
        return found


def _spellings(name: str, text: str | None, regions: Sequence[str]) -> tuple[str, ...] | None:
    """Return a party in the comparable form of each region; Invalid if it is no party in the first region."""
    if text is None:
        return None
    value, *others = (party(text, region) for region in regions)
    if value is None:
        raise Invalid(f"{name}: neither a number nor another party", hint="for example +44 1632 960001")
    # ANONYMOUS matches all withheld numbers, so digits that mean it in another region are left out.
    spelt = (value, *(each for each in others if each is not None and each != ANONYMOUS))
    return tuple(dict.fromkeys((*spelt, *(before for each in spelt for before in former_spellings(each)))))
