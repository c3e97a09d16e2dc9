"""A vault whose process can end before or after any single write, and whose successor starts from the same disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from tests.helpers.scratch import MEMORY
from vault.config import Config, parse_config
from vault.format.keyring import HEAD
from vault.ids import RecordingId, TenantId, TokenId
from vault.keystore.keyring import Keyring
from vault.keystore.replicas import DirectoryReplica, Files
from vault.keystore.root.file import FileRootKeys
from vault.model import CallFacts, Codec, Container, HoldKind, Media, Principal, Role
from vault.retention.periods import Period
from vault.services.holds.holds import HoldRequest
from vault.services.ingest.sessions import CallStart, IngestSession
from vault.services.surroundings import Surroundings
from vault.services.vault import Vault
from vault.storage.catalog.catalog import open_catalog
from vault.storage.journal.file import Disk
from vault.storage.journal.journal import FileJournal
from vault.storage.objects.filesystem import FilesystemObjectStore
from vault.storage.postgres import FileClusterLocks
from vault.telemetry import Metrics
from vault.wiring.compose import Adapters, compose
from vault.wiring.open import _recover

BEGAN = datetime(2026, 3, 1, 9, tzinfo=UTC)
ACME, BETA = TenantId("acme"), TenantId("beta")
MEDIA = Media(container=Container.RAW, codec=Codec.PCMU, rate=8000, channels=1)

_CATALOG_READS = frozenset(
    {
        *("recording", "recording_by_call", "recordings_by_object", "recordings", "open_recordings", "due_recordings"),
        *(
            "undeleted_recordings",
            "count_recordings",
            "count_kept",
            "oldest_due",
            "segments",
            "hold",
            "holds",
            "holds_on",
            "hold_terms",
            "terms_of",
            "counted_hold",
            "counted_holds",
            "members",
            "first_members",
            "earliest_start",
            "unlabelled_holds",
            "to_label",
            "to_label_again",
            "protected",
            "count_unlabelled",
        ),
        *(
            "count_due",
            "count_undeleted",
            "segments_of",
            "object_names",
            "keys_of",
            "recording_states",
            "uncertified",
            "erasure",
            "erasures",
            "erasures_of",
        ),
        *("doubtful_recordings", "exceptional_recordings", "count_due_cohorts", "count_live", "erasures_on"),
        *("sweep_floor", "unfinished_shreds", "shred", "certificate", "certificates", "overrides", "policy_requests"),
        *("alert_of", "alerts_waiting"),
        *("due_lots", "certificates_of", "certificates_named", "certificate_batches", "certificate_forms"),
        *(
            "notes",
            "tenant",
            "tenants",
            "token",
            "tokens",
            "audit_lines",
            "audit_found",
            "last_audited",
            "token_names",
            "placers",
            "ids_beginning",
            "setting",
            "check_schema",
            "close",
        ),
    }
)
_STORE_READS = frozenset({"kind", "get", "stat", "list", "check", "close"})


class Crash(BaseException):
    """The process ends here; no service can answer for it."""


class Faults:
    """Counts writes and ends the process at one of them; a dead process writes nothing more.

    `lost`: the write never happened. `landed`: it happened, and nobody heard.
    """

    def __init__(self) -> None:
        self.dead = False
        self.trace: list[str] = []
        self._at: int | None = None
        self._landed = False
        self._armed = False
        self._lock = threading.Lock()

    def arm(self, at: int | None, *, landed: bool) -> None:
        self.trace, self._at, self._landed, self._armed = [], at, landed, True

    def before(self, name: str) -> None:
        with self._lock:
            if self.dead:
                raise Crash
            if not self._armed:
                return
            self.trace.append(name)
            self.dead = len(self.trace) == self._at
            if self.dead and not self._landed:
                raise Crash

    def after(self) -> None:
        if self.dead:
            raise Crash


class FaultyPort:
    """Stands before an asynchronous port; every method that is not a known read counts as a write."""

    def __init__(self, name: str, inner: Any, faults: Faults, *, reads: frozenset[str]) -> None:
        self._name, self._inner, self._faults, self._reads = name, inner, faults, reads

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in self._reads:
            return found

        async def write(*args: Any, **kwargs: Any) -> Any:
            self._faults.before(f"{self._name}.{name}")
            answer = await found(*args, **kwargs)
            self._faults.after()
            return answer

        return write


def _faulty(name: str, method: Callable[..., Any], faults: Faults) -> Callable[..., Any]:
    def write(*args: Any) -> Any:
        faults.before(name)
        answer = method(*args)
        faults.after()
        return answer

    return write


class FaultyFiles(Files):
    """The keystore's files behind the same counter; the exchange of a head has a name of its own."""

    def __init__(self, name: str, faults: Faults) -> None:
        for each in ("make_directory", "replace", "overwrite", "unlink"):
            setattr(self, each, _faulty(f"{name}.{each}", getattr(super(), each), faults))
        write, swap = self.replace, _faulty(f"{name}.swap_head", super().replace, faults)
        self.replace = lambda path, data: (swap if path.name == HEAD else write)(path, data)


class FaultyDisk(Disk):
    """The journal's system calls behind the same counter."""

    def __init__(self, faults: Faults) -> None:
        for each in ("create", "write", "sync", "truncate", "unlink", "sync_directory"):
            setattr(self, each, _faulty(f"journal.{each}", getattr(super(), each), faults))


class ManualClock:
    """Wall time that moves when told to; intervals are real ones, and what a test says was slept."""

    def __init__(self) -> None:
        self.at = BEGAN
        self.slept = 0.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return time.monotonic() + self.slept

    def advance(self, **by: float) -> None:
        self.at += timedelta(**by)


@dataclass(slots=True, kw_only=True)
class Process:
    """One incarnation of the server, without the server."""

    vault: Vault
    faults: Faults
    clock: ManualClock
    _adapters: Adapters
    _real_catalog: Any
    _real_store: FilesystemObjectStore
    _renewing: asyncio.Task[None]

    async def abandon(self) -> None:
        """Take from the dead what the kernel takes: descriptors, locks and threads; nothing is written."""
        self._renewing.cancel()
        await asyncio.wait([self._renewing])
        journal = self._adapters.journal
        await asyncio.to_thread(journal._committer._thread.shutdown)
        os.close(journal._lock_fd)
        journal._lock_fd = -1
        for file in journal._committer.files:
            file.close()
        await self._real_store.close()
        await self._real_catalog.close()


def config_at(base: Path) -> Config:
    return parse_config(
        {
            "journal": {"file_bytes": "1MiB", "max_bytes": "8MiB", "disk_reserve": "1MiB", "commit_interval": "0ms"},
            "segments": {"max_bytes": "16KiB", "concurrency": 2},
            "retention": {"default": "10d", "cohort_width": "1d", "release_grace": "1d", "erasure_window": "0s"},
            "sweep": {"enabled": False, "max_jump": "400d", "max_share": 1.0},
            "keyring": {"precreate_days": 0},
            "identity": {"processor": "Vault Ltd", "contact": "dpo@vault.example"},
        },
        base=base,
    )


async def start(config: Config, clock: ManualClock, faults: Faults | None = None) -> Process:
    """Open the vault as `open_vault` does, with every write counted; Crash also ends a start."""
    faults = faults or Faults()
    metrics = Metrics(CollectorRegistry())
    catalog = open_catalog(config.catalog_path, clock=clock, metrics=metrics)
    provider = FileRootKeys(
        config.file_root_path(config.keyring.root), clock=clock, files=FaultyFiles("provider", faults)
    )
    try:
        files = FaultyFiles("keyring", faults)
        replicas = [DirectoryReplica(path, files=files) for path in config.replica_paths]
        keyring = await Keyring.open(replicas, provider, clock=clock)
    except BaseException:
        await catalog.close()
        raise
    store = await FilesystemObjectStore.open(config.objects_path, workers=2)
    journal = FileJournal(
        config.journal_path,
        clock=clock,
        file_bytes=config.journal.file_bytes,
        bytes_bound=config.journal.max_bytes,
        disk_reserve_bytes=config.journal.disk_reserve,
        commit_interval_seconds=0,
        disk=FaultyDisk(faults),
    )
    adapters = Adapters(
        FaultyPort("catalog", catalog, faults, reads=_CATALOG_READS),
        keyring,
        FaultyPort("objects", store, faults, reads=_STORE_READS),
        journal,
        FileClusterLocks(config.locks_path, clock=clock),
    )
    process = Process(
        vault=compose(config, Surroundings(clock=clock, entropy=os.urandom, metrics=metrics), adapters),
        faults=faults,
        clock=clock,
        _adapters=adapters,
        _real_catalog=catalog,
        _real_store=store,
        _renewing=asyncio.create_task(keyring.run(), name="keyring lease"),
    )
    try:
        await _recover(process.vault)
    except BaseException:
        await process.abandon()
        raise
    return process


@contextmanager
def crash_is_the_end(faults: Faults) -> Iterator[None]:
    """Leave quietly when the process died in here, whatever its last breath sounded like."""
    try:
        yield
    except BaseException:
        if not faults.dead:
            raise


@asynccontextmanager
async def storing(vault: Vault) -> AsyncIterator[None]:
    """Run the storer beside the body, as the open vault does."""
    body = asyncio.current_task()
    assert body is not None
    work = asyncio.create_task(vault.storer.run())
    died = leaving = False

    def ended(task: asyncio.Task[None]) -> None:
        nonlocal died
        # Once the body is over, there is nothing left to cancel but whatever its caller does next.
        if not task.cancelled() and not leaving:
            died = True
            body.cancel()

    work.add_done_callback(ended)
    try:
        yield
    except asyncio.CancelledError:
        if not died:
            raise
        body.uncancel()
        raise Crash from None
    finally:
        leaving = True
        work.cancel()
        with suppress(BaseException):
            await work


async def leases_run_out(vault: Vault, clock: ManualClock) -> None:
    """Let as much time go by as a view of the keyring may be old, and look at it again."""
    clock.slept += vault.keyring.lease.total_seconds()
    await vault.keyring.refresh()


@contextmanager
def memory_directory() -> Iterator[Path]:
    """Give a directory in memory where there is one: a process's crash, unlike a power cut, forgets no write."""
    base = Path(tempfile.mkdtemp(prefix="vault-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    try:
        yield base
    finally:
        shutil.rmtree(base)


def person(name: str, role: Role = Role.COMPLIANCE, tenant: TenantId | None = ACME) -> Principal:
    return Principal(token_id=TokenId("tok_" + name.encode().hex().ljust(32, "0")), name=name, role=role, tenant=tenant)


def call(key: str, *, tenant: TenantId = ACME, days: float = 10) -> CallStart:
    return CallStart(
        tenant=tenant,
        call_key=key,
        media=MEDIA,
        facts=CallFacts(caller="+442079460123"),
        started_at=None,
        retention=Period(timedelta(days=days)),
    )


async def begin(vault: Vault, start_of: CallStart, audio: bytes) -> IngestSession:
    """Send `audio` as the beginning of a call and wait until it is durable: acknowledged."""
    session = await vault.ingest.start(start_of, actor=person("pbx", Role.RECORDER, start_of.tenant))
    await vault.ingest.write(session, audio)
    assert session.entry is not None
    await session.entry.barrier()
    return session


async def record(vault: Vault, start_of: CallStart, audio: bytes) -> RecordingId:
    """Take a whole call in and wait until it is sealed; the storer runs."""
    session = await begin(vault, start_of, audio)
    await vault.ingest.finish(session)
    vault.ingest.detach(session)
    await session.done.wait()
    return session.recording.id


def hold_request(*recordings: RecordingId, clock: ManualClock, tenant: TenantId = ACME) -> HoldRequest:
    return HoldRequest(
        tenant=tenant,
        kind=HoldKind.LEGAL,
        matter="SMITH-2026",
        reason="claim",
        authority="general counsel",
        owner="legal",
        review_at=clock.now() + timedelta(days=300),
        recordings=recordings,
    )


async def play(vault: Vault, recording: RecordingId) -> bytes:
    """Return all stored bytes, as a person with a purpose gets them."""
    row = await vault.catalog.recording(recording)
    opened = await vault.playback.open(recording, actor=person("ann", tenant=row.tenant), purpose="quality")
    return b"".join([piece async for piece in vault.playback.read(opened, 0, opened.length)])
