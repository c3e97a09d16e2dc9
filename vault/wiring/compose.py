"""Builds every service from its adapters and settings."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from vault.config import Config
from vault.crypto.signing import SigningKey
from vault.errors import ConfigError, FormatError
from vault.keystore.keyring import Keyring
from vault.places import unusable
from vault.ports.catalog import Catalog
from vault.ports.cluster import ClusterLocks
from vault.ports.objects import ObjectStore
from vault.retention.guards import Limits
from vault.retention.periods import FLOOR
from vault.server.webhooks import HttpMessenger
from vault.services.audit import Trail
from vault.services.certificates.batches import Certificates
from vault.services.certificates.content import Identity
from vault.services.certificates.issuing import Certifier
from vault.services.deletion.erasures import Erasures
from vault.services.deletion.planning import Planner
from vault.services.deletion.policies import Overrides, Policies
from vault.services.deletion.shredding import Shredder
from vault.services.deletion.sweep import Sweeper, SweepLimits
from vault.services.health.status import Presence, Status
from vault.services.holds.flags import Alerts, Flags
from vault.services.holds.holds import Holds, Labels
from vault.services.ingest.call_keys import Begun, CallKeys
from vault.services.ingest.call_notes import Notes
from vault.services.ingest.ingest import OPEN_RECORDINGS, Ingest, IngestLimits
from vault.services.ingest.live import FeedParts
from vault.services.ingest.slots import Shares
from vault.services.ingest.storing import SegmentLimits, Storer
from vault.services.keys import Keys, is_pinned
from vault.services.people.access import Access
from vault.services.playback.playback import Playback, Recordings
from vault.services.recordings.dossiers import Coordinates, Dossiers
from vault.services.recordings.reading import Reader
from vault.services.recordings.search import BlindIndex, Search
from vault.services.repeats import Repeats
from vault.services.surroundings import Surroundings, VaultTime
from vault.services.tenants.tenants import Reindexing, Tenants, Webhooks
from vault.services.uploads.parts import Parts
from vault.services.uploads.resumable import Uploads
from vault.services.uploads.spooling import SPOOL, Windows
from vault.services.uploads.whole import Objects
from vault.services.vault import IN_WORK, Vault
from vault.storage.journal.journal import FileJournal
from vault.storage.spool import FileSpool
from vault.wiring.retention import bounds_of

_MOST_AHEAD = 32
"""Periods created ahead; only a vault with a cohort width far below a day would need more."""


@dataclass(frozen=True, slots=True)
class Adapters:
    """The opened adapters of the ports."""

    catalog: Catalog
    keyring: Keyring
    store: ObjectStore
    journal: FileJournal
    locks: ClusterLocks


def compose(config: Config, surroundings: Surroundings, adapters: Adapters) -> Vault:
    """Wire every service; starts nothing."""
    catalog, keyring, store = adapters.catalog, adapters.keyring, adapters.store
    clock, entropy, metrics = surroundings.clock, surroundings.entropy, surroundings.metrics
    vault_time = VaultTime(clock, lambda: keyring.last_sweep_at)
    by_vault_time = replace(surroundings, clock=vault_time)
    access = Access(
        catalog=catalog,
        surroundings=surroundings,
        sealing_keys=lambda: adapters.keyring.backup_keys,
        last_sweep_at=lambda: adapters.keyring.last_sweep_at,
    )
    coordinates = Coordinates(catalog=catalog, keyring=keyring)
    index = BlindIndex(keyring=keyring)
    reader = Reader(store=store)
    tenants = Tenants(
        catalog=catalog,
        coordinates=coordinates,
        clock=vault_time,
        webhooks=Webhooks(networks=config.alerts.private_networks),
        bounds=bounds_of(config, keyring),
        periods_ahead=min(
            int(timedelta(days=config.keyring.precreate_days) / config.retention.cohort_width), _MOST_AHEAD
        ),
        export_window=config.retention.export_window,
    )
    search = Search(catalog=catalog, keyring=keyring, index=index, regions=tenants.regions)
    notes = Notes(catalog=catalog, keyring=keyring, index=index, tenants=tenants, surroundings=surroundings)
    ingest = Ingest(
        catalog=catalog,
        keyring=keyring,
        journal=adapters.journal,
        coordinates=coordinates,
        index=index,
        tenants=tenants,
        notes=notes,
        surroundings=surroundings,
        limits=IngestLimits(
            max_recording_bytes=config.server.max_recording_bytes,
            resume_grace=config.server.resume_grace,
            backdating=config.retention.backdating,
            retention_floor=bounds_of(config, keyring).floor or FLOOR,
            pause_max=config.ingest.pause_max,
        ),
        shares=Shares(config.server.max_open_recordings, OPEN_RECORDINGS, clock=clock, metrics=metrics),
        storer=partial(
            Storer,
            store=store,
            catalog=catalog,
            reader=reader,
            surroundings=surroundings,
            limits=SegmentLimits(
                max_bytes=config.segments.max_bytes,
                first_age=config.segments.first_age,
                max_age=config.segments.max_age,
                concurrency=config.segments.concurrency,
            ),
            filled=adapters.journal.filled,
            pinned=partial(is_pinned, keyring),
        ),
    )
    labels = Labels(catalog=catalog, keyring=keyring, store=store, locks=adapters.locks)
    holds = Holds(
        access=access,
        catalog=catalog,
        keyring=keyring,
        labels=labels,
        surroundings=by_vault_time,
        release_grace=config.retention.release_grace,
        cap=config.retention.cap,
    )
    issuer_key = _issuer_key(config)
    alerts = Alerts(
        catalog=catalog,
        holds=holds,
        messenger=HttpMessenger(),
        issuer_key=issuer_key,
        surroundings=surroundings,
    )
    certificates = Certificates(catalog=catalog, issuer_key=issuer_key, entropy=entropy)
    certifier = Certifier(
        catalog=catalog,
        store=store,
        certificates=certificates,
        identity=Identity(
            processor=config.identity.processor,
            contact=config.identity.contact,
            region=config.identity.region,
            trial=keyring.trial,
            unnamed=() if keyring.trial else config.identity.unnamed,
        ),
        surroundings=surroundings,
    )
    dossiers = Dossiers(catalog=catalog, keyring=keyring, export_window=config.retention.export_window)
    shredder = Shredder(
        catalog=catalog,
        keyring=keyring,
        locks=adapters.locks,
        holds=holds,
        dossiers=dossiers,
        certifier=certifier,
        surroundings=surroundings,
    )
    overrides = Overrides(catalog=catalog, surroundings=by_vault_time)
    bounds = bounds_of(config, keyring)
    policies = Policies(
        catalog=catalog,
        keyring=keyring,
        dossiers=dossiers,
        surroundings=by_vault_time,
        notice=config.retention.notice,
        bounds=bounds,
        backdating=config.retention.backdating,
    )
    guard = Limits(max_jump=config.sweep.max_jump, max_share=config.sweep.max_share)
    erasures = Erasures(
        access=access,
        catalog=catalog,
        keyring=keyring,
        dossiers=dossiers,
        search=search,
        shredder=shredder,
        surroundings=by_vault_time,
        window=config.retention.erasure_window,
    )
    playback = Playback(
        catalog=catalog,
        keyring=keyring,
        ingest=ingest,
        reader=reader,
        purposes=config.access.purposes,
        each=config.access.max_playbacks,
    )
    spooled = Shares(config.parts.max_bytes, SPOOL, clock=clock, metrics=metrics)
    spool = FileSpool(
        config.spool_path,
        room=spooled,
        disk_reserve_bytes=config.journal.disk_reserve,
        entropy=entropy,
    )
    parts = Parts(
        catalog=catalog,
        ingest=ingest,
        keyring=keyring,
        notes=notes,
        spool=spool,
        shares=spooled,
        surroundings=surroundings,
        grace=config.server.upload_grace,
        patience=config.server.resume_grace,
        limit=config.server.max_recording_bytes,
        windows=Windows(bound=config.journal.max_undurable_bytes),
    )
    call_keys = CallKeys(ingest=ingest, search=search)
    presence = Presence(
        catalog=catalog, ingest=ingest, clock=clock, name=f"{socket.gethostname()}:{config.journal_path}"
    )
    return Vault(
        trail=Trail(catalog=catalog),
        reindexing=Reindexing(catalog=catalog, keyring=keyring, index=index, tenants=tenants),
        repeats=Repeats(catalog=catalog, surroundings=surroundings, sealing_keys=lambda: adapters.keyring.backup_keys),
        access=access,
        begun=Begun(catalog=catalog, ingest=ingest, keyring=keyring, search=search),
        alerts=alerts,
        labels=labels,
        catalog=catalog,
        certificates=certificates,
        certifier=certifier,
        clock=clock,
        erasures=erasures,
        feeds=FeedParts(ingest=ingest, call_keys=call_keys, notes=notes, tenants=tenants),
        flags=Flags(
            catalog=catalog,
            holds=holds,
            ingest=ingest,
            call_keys=call_keys,
            surroundings=surroundings,
            review=config.retention.flag_review,
            raised=alerts.wake,
        ),
        holds=holds,
        ingest=ingest,
        journal=adapters.journal,
        keyring=keyring,
        keys=Keys(catalog=catalog, keyring=keyring, surroundings=surroundings, ahead=tenants.precreate),
        metrics=metrics,
        call_keys=call_keys,
        notes=notes,
        objects=Objects(
            ingest=ingest,
            call_keys=call_keys,
            notes=notes,
            playback=playback,
            search=search,
            spool=spool,
            shares=spooled,
            surroundings=surroundings,
            windows=parts.windows,
        ),
        parts=parts,
        playback=playback,
        presence=presence,
        overrides=overrides,
        policies=policies,
        recordings=Recordings(
            catalog=catalog,
            keyring=keyring,
            ingest=ingest,
            search=search,
            dossiers=dossiers,
            certificates=certificates,
            overrides=overrides,
            clock=clock,
        ),
        requests=Shares(config.server.max_requests, IN_WORK, clock=clock, metrics=metrics),
        search=search,
        shredder=shredder,
        status=Status(
            catalog=catalog,
            ingest=ingest,
            journal=adapters.journal,
            keyring=keyring,
            presence=presence,
            store=store,
            tenants=tenants,
            surroundings=surroundings,
        ),
        storer=ingest.storer,
        store=store,
        sweeper=Sweeper(
            catalog=catalog,
            keyring=keyring,
            planner=Planner(
                catalog=catalog,
                keyring=keyring,
                holds=holds,
                dossiers=dossiers,
                policies=policies,
                shredder=shredder,
                entropy=entropy,
                limits=guard,
            ),
            overrides=overrides,
            policies=policies,
            shredder=shredder,
            erasures=erasures,
            surroundings=surroundings,
            limits=SweepLimits(interval=config.sweep.interval, jitter=config.sweep.jitter, guard=guard),
        ),
        tenants=tenants,
        uploads=Uploads(
            access=access,
            catalog=catalog,
            ingest=ingest,
            call_keys=call_keys,
            keyring=keyring,
            notes=notes,
            playback=playback,
            tenants=tenants,
            surroundings=surroundings,
            grace=config.server.upload_grace,
        ),
    )


def _issuer_key(config: Config) -> SigningKey:
    try:
        return SigningKey.from_pem(config.issuer_path.read_bytes())
    except OSError as error:
        raise unusable(config.issuer_path, error, setting="issuer key") from error
    except FormatError as error:
        message = f"the issuer key {config.issuer_path} is damaged: {error.message}"
        raise ConfigError(message, hint="restore it: init made it, and backups have it") from error
