"""The open vault: all services, wired, for the server and the local commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vault.ports.catalog import Catalog
from vault.ports.journal import Journal
from vault.ports.keys import Keyring
from vault.ports.objects import ObjectStore
from vault.ports.time import Clock
from vault.services.audit import Trail
from vault.services.certificates.batches import Certificates
from vault.services.certificates.issuing import Certifier
from vault.services.deletion.erasures import Erasures
from vault.services.deletion.policies import Overrides, Policies
from vault.services.deletion.shredding import Shredder
from vault.services.deletion.sweep import Sweeper
from vault.services.health.status import Presence, Status
from vault.services.holds.flags import Alerts, Flags
from vault.services.holds.holds import Holds, Labels
from vault.services.ingest.call_keys import Begun, CallKeys
from vault.services.ingest.call_notes import Notes
from vault.services.ingest.ingest import Ingest
from vault.services.ingest.live import FeedParts
from vault.services.ingest.slots import Resource, Shares
from vault.services.ingest.storing import Storer
from vault.services.keys import Keys
from vault.services.people.access import Access
from vault.services.playback.playback import Playback, Recordings
from vault.services.recordings.search import Search
from vault.services.repeats import Repeats
from vault.services.tenants.tenants import Reindexing, Tenants
from vault.services.uploads.parts import Parts
from vault.services.uploads.resumable import Uploads
from vault.services.uploads.whole import Objects
from vault.telemetry import Metrics

IN_WORK: Final = Resource(
    name="requests",
    what="requests in work",
    full="too many requests are in work on this server; nothing was begun",
    hint="try again later: calls that are being recorded continue",
    retry_after_seconds=2,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vault:
    """All services of an open vault; `vault.wiring` builds it and owns its background tasks."""

    access: Access
    begun: Begun
    alerts: Alerts
    labels: Labels
    catalog: Catalog
    """The server reads from it what is shown as it is stored; whatever decides or writes is a service's."""
    certificates: Certificates
    certifier: Certifier
    clock: Clock
    erasures: Erasures
    feeds: FeedParts
    flags: Flags
    holds: Holds
    ingest: Ingest
    journal: Journal
    keyring: Keyring
    keys: Keys
    metrics: Metrics
    call_keys: CallKeys
    notes: Notes
    objects: Objects
    parts: Parts
    playback: Playback
    presence: Presence
    overrides: Overrides
    policies: Policies
    recordings: Recordings
    requests: Shares
    """Requests in work outside ingest that came with a credential; the limits of connections bound the others."""
    repeats: Repeats
    search: Search
    status: Status
    shredder: Shredder
    storer: Storer
    store: ObjectStore
    sweeper: Sweeper
    tenants: Tenants
    trail: Trail
    reindexing: Reindexing
    uploads: Uploads
