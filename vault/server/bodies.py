"""Request bodies and query strings."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from vault.config import Duration
from vault.model import HoldKind, RecordingState, Role

Words = Annotated[str, Field(min_length=1, max_length=500)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PlaceHold(_Body):
    """POST /v1/holds."""

    tenant: str | None = None
    kind: HoldKind
    matter: Words
    reason: Words
    authority: Words
    owner: Words
    review_at: AwareDatetime
    recordings: Annotated[list[str], Field(min_length=1, max_length=10_000)]


class ReviewHold(_Body):
    """POST /v1/holds/{id}/review."""

    next_review: AwareDatetime
    note: Words


class ReleaseHold(_Body):
    """POST /v1/holds/{id}/release."""

    reason: Words


class ApproveRelease(_Body):
    """POST /v1/holds/{id}/approve."""

    approve: bool = True


class AddTenant(_Body):
    """POST /v1/tenants."""

    id: str
    name: Words
    controller: Words
    contact: Words
    retention: Duration | None = None


class ChangeTenant(_Body):
    """PUT /v1/tenants/{tenant}."""

    retention: Duration | None


class IssueToken(_Body):
    """POST /v1/tokens."""

    name: Words
    role: Role
    tenant: str | None = None


class RunSweep(_Body):
    """POST /v1/sweeps."""

    dry_run: bool = False


class RequestOverride(_Body):
    """POST /v1/sweeps/overrides."""

    through: AwareDatetime
    reason: Words


class ListRecordings(_Body):
    """GET /v1/recordings."""

    tenant: str | None = None
    state: RecordingState | None = None
    started_from: AwareDatetime | None = Field(default=None, alias="from")
    started_to: AwareDatetime | None = Field(default=None, alias="to")
    held: bool | None = None
    before: str | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class Page(_Body):
    """A page of anything else."""

    tenant: str | None = None
    recording: str | None = None
    before: str | None = None
    after: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class PlayAudio(_Body):
    """GET /v1/recordings/{id}/audio."""

    format: Annotated[str, Field(pattern="^(wav|raw)$")] = "wav"
