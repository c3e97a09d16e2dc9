"""The open vault: every service, wired; what the server and the local commands hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vault.ports.catalog import Catalog
from vault.ports.journal import Journal
from vault.ports.keys import Keyring
from vault.ports.objects import ObjectStore
from vault.ports.time import Clock
from vault.services.access import Access
from vault.services.alerts import Alerts
from vault.services.begun import Begun
from vault.services.certificates import Certificates
from vault.services.certify import Certifier
from vault.services.erasure import Erasures
from vault.services.feed import FeedParts
from vault.services.flags import Flags
from vault.services.holds import Holds
from vault.services.ingest import Ingest
from vault.services.keys import Keys
from vault.services.naming import CallNames
from vault.services.nodes import Presence
from vault.services.notes import Notes
from vault.services.objects import Objects
from vault.services.overrides import Overrides
from vault.services.parts import Parts
from vault.services.playback import Playback
from vault.services.policies import Policies
from vault.services.recordings import Recordings
from vault.services.reindexing import Reindexing
from vault.services.repeats import Repeats
from vault.services.search import Search
from vault.services.shredding import Shredder
from vault.services.slots import Resource, Shares
from vault.services.status import Status
from vault.services.storing import Storer
from vault.services.sweep import Sweeper
from vault.services.tenants import Tenants
from vault.services.uploads import Uploads
from vault.telemetry import Metrics

IN_WORK: Final = Resource(
    name="requests",
    what="requests in work",
    full="as many requests are in work as this server takes; nothing was begun",
    hint="come back: calls that are being recorded go on",
    retry_after_seconds=2,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vault:
    """A composition of collaborators; `vault.wiring` builds it and owns its background tasks."""

    access: Access
    begun: Begun
    alerts: Alerts
    catalog: Catalog
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
    names: CallNames
    notes: Notes
    objects: Objects
    parts: Parts
    playback: Playback
    presence: Presence
    overrides: Overrides
    policies: Policies
    recordings: Recordings
    requests: Shares
    """Requests in work that came with a credential, outside ingest; the connections bound what comes without."""
    repeats: Repeats
    search: Search
    status: Status
    shredder: Shredder
    storer: Storer
    store: ObjectStore
    sweeper: Sweeper
    tenants: Tenants
    reindexing: Reindexing
    uploads: Uploads
