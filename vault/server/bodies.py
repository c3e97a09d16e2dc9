"""Request bodies and query strings."""

from __future__ import annotations

import enum
import re
from datetime import UTC, datetime
from typing import Annotated, Final, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from vault.config.sections import Duration, Retention
from vault.model import HoldKind, Role
from vault.ports.erasures import ErasureBasis
from vault.protocol.facts.parties import DEFAULT_REGION
from vault.protocol.webhook import FlagCategory

Words = Annotated[str, Field(min_length=1, max_length=500)]
Number = Annotated[str, Field(min_length=1, max_length=200)]
Address = Annotated[str, Field(min_length=1, max_length=2000)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

_NUMBER: Final = re.compile(r"\s*[+-]?[\d.]+(?:e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)


def _no_number(value: object) -> object:
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        raise ValueError("write an instant as RFC 3339: 2026-12-01T09:00:00Z")
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("it lies beyond the calendar") from None


Instant = Annotated[AwareDatetime, AfterValidator(_in_utc), BeforeValidator(_no_number)]
"""An instant of the calendar in UTC: one that is beyond it there is written, and cannot be read again."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PlaceHold(_Body):
    """POST /v1/holds."""

    tenant: str | None = None
    kind: HoldKind
    matter: Words
    reason: Words
    authority: Words
    owner: Words
    review_at: Instant | None = None
    recordings: Annotated[list[str], Field(min_length=1, max_length=10_000)]


class ReviewHold(_Body):
    """POST /v1/holds/{id}/review."""

    review_at: Instant | None = None
    next_review: Annotated[Instant | None, Field(json_schema_extra={"deprecated": True})] = None
    """What `review_at` was called before; it goes in the next version."""
    note: Words

    @model_validator(mode="after")
    def _once(self) -> Self:
        if (self.review_at is None) == (self.next_review is None):
            raise ValueError("review_at: say once when somebody looks again")
        return self

    @property
    def at(self) -> datetime:
        """When somebody looks again."""
        found = self.review_at or self.next_review
        assert found is not None
        return found


class ReleaseHold(_Body):
    """POST /v1/holds/{id}/release."""

    reason: Words


class FlagCall(_Body):
    """POST /v1/ingest/{tenant}/{call_key}/flag."""

    category: FlagCategory


class FlagRecording(FlagCall):
    """POST /v1/recordings/{id}/flag. The reason stays with the hold: no alert carries it."""

    matter: Words | None = None
    reason: Annotated[str, Field(min_length=1, max_length=400)] | None = None


class AddTenant(_Body):
    """POST /v1/tenants."""

    id: str
    name: Words
    controller: Words
    contact: Words
    retention: Retention | None = None
    metadata_retention: Retention | None = None
    numbering_region: str = DEFAULT_REGION
    """Where numbers without a country code are dialled, ISO 3166-1."""
    keep_dtmf: bool = False
    safeguarding_webhook: Address | None = None
    origins: list[Address] = []


class ChangeTenant(_Body):
    """PUT /v1/tenants/{tenant}: what is left out stays as it is."""

    retention: Retention | None = None
    """null follows the vault."""
    metadata_retention: Retention | None = None
    """null keeps metadata until the contract ends."""
    safeguarding_webhook: Address | None = None
    """Where flags are told; null tells nobody."""
    numbering_region: str | None = None
    """Where numbers without a country code are dialled; null changes nothing."""
    keep_dtmf: bool | None = None
    """Whether pressed keys are kept; null changes nothing."""
    origins: list[Address] | None = None
    """The web origins whose pages may record; null changes nothing."""


class Reindex(_Body):
    """POST /v1/tenants/{tenant}/reindex: where the page begins."""

    before: Number | None = None


class EndContract(_Body):
    """POST /v1/tenants/{tenant}/offboard."""

    contract_end: Instant | None = None


class RequestPolicy(_Body):
    """POST /v1/policies: what is to hold for the calls that exist."""

    tenant: str | None = None
    metadata_retention: Retention | None = None
    """null keeps metadata until the contract ends."""
    retention: Retention | None = None
    """For audio; one request changes one of the two."""


class Approve(_Body):
    """The second person's word: an approval names the `shown` of what it approves."""

    approve: bool = True
    shown: Digest | None = None


class ApproveShown(_Body):
    """POST /v1/erasures/{id}/approve: the `shown` of what is approved."""

    shown: Digest | None = None


class RequestErasure(_Body):
    """POST /v1/erasures: `recordings`, or numbers that are searched for now."""

    tenant: str | None = None
    basis: ErasureBasis
    case_reference: Words
    recordings: Annotated[list[str], Field(max_length=10_000)] = []
    caller: Number | None = None
    called: Number | None = None
    queue: bool = False


class IssueToken(_Body):
    """POST /v1/tokens."""

    name: Words
    role: Role
    tenant: str | None = None
    imports_until: Instant | None = None
    """Until then a recorder's calls are kept from their true starts: at most 90 days ahead; an operator issues it."""
    expires_at: Instant | None = None
    """From then on the token begins nothing: at most ten years ahead; null never."""


class RunSweep(_Body):
    """POST /v1/sweeps."""

    dry_run: bool = False


class RequestOverride(_Body):
    """POST /v1/sweeps/overrides: for what of `tenant` is early; an operator leaves it out for the clock."""

    tenant: str | None = None
    through: Instant
    reason: Words


class ListedState(enum.StrEnum):
    """A state of recordings, or `live`: open, and being recorded by the node that answers."""

    OPEN = "open"
    LIVE = "live"
    SEALED = "sealed"
    TRUNCATED = "truncated"
    SHREDDING = "shredding"
    SHREDDED = "shredded"


class SearchRecordings(_Body):
    """POST /v1/recordings/search, and GET /v1/recordings with the same names."""

    tenant: str | None = None
    call_key: Annotated[str, Field(min_length=1, max_length=4000)] | None = None
    """What the recorder calls the call."""
    caller: Number | None = None
    called: Number | None = None
    agent: Number | None = None
    """Who took the call on this side: called inbound, calling outbound."""
    direction: Annotated[str, Field(pattern="^(inbound|outbound)$")] | None = None
    tag: Number | None = None
    state: ListedState | None = None
    started_from: Instant | None = Field(default=None, alias="from")
    started_to: Instant | None = Field(default=None, alias="to")
    held: bool | None = None
    ahead: bool | None = None
    min_bytes: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    max_bytes: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    min_duration: Duration | None = None
    """Such as 90s or 1h30m; of ended calls."""
    max_duration: Duration | None = None
    expires_from: Instant | None = None
    """Of its `retain_until`; with one of these two what goes first comes first."""
    expires_to: Instant | None = None
    before: str | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class ListRecordings(SearchRecordings):
    """GET /v1/recordings."""


class Page(_Body):
    """A page of anything else."""

    tenant: str | None = None
    recording: str | None = None
    before: str | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class ReadAudit(_Body):
    """GET /v1/audit."""

    tenant: str | None = None
    recording: str | None = None
    """Only what was done with this recording."""
    actor: str | None = None
    """Only what this token did."""
    event: Annotated[str, Field(pattern=r"^[a-z_]{1,60}(\.[a-z_]{1,60})?$")] | None = None
    """`access.play`, or `access` for all that begin so."""
    since: Instant | None = Field(default=None, alias="from")
    until: Instant | None = Field(default=None, alias="to")
    order: Annotated[str, Field(pattern="^(oldest|newest)$")] = "oldest"
    before: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    """With `order=newest`: continue after this entry, the last one of a page."""
    after: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    """With `order=oldest`: likewise."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class PlayAudio(_Body):
    """GET /v1/recordings/{id}/audio."""

    format: Annotated[str, Field(pattern="^(wav|raw)$")] = "wav"
