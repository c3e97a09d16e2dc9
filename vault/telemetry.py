"""Metrics (one struct, one injected registry) and JSON logging without personal data."""

from __future__ import annotations

import json
import logging
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from itertools import accumulate, product
from typing import Final, TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from vault import __version__
from vault.access.permissions import Why
from vault.access.shares import Ruling
from vault.errors import error_codes
from vault.instants import rfc3339
from vault.media.heads import DIFFERENCES
from vault.model import CertificateStatus, Container, Content
from vault.protocol.facts.stated import KINDS, Unusable
from vault.protocol.live.events import Broken
from vault.protocol.live.recognise import IN_FRAMES
from vault.retention.policy import StartEffect

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the present request, which the server sets; log lines and audit events carry it."""

DIALECTS: Final = (
    *("http", "resumable", "tus", "s3", "rtpengine", "siprec"),
    *("asterisk", "audio_fork", "audio_stream", "audiohook", "telnyx", "twilio", "vonage"),
    *("audiosocket", "rtpengine_tcp"),
)
"""The protocols that audio arrives by: in requests, over WebSocket, over TCP."""
SHARED: Final = ("recordings", "spool", "connections", "requests")
STORES: Final = ("filesystem", "memory", "s3")
ROOT_OPERATIONS: Final = ("destroy", "new_version", "self_check", "unwrap", "versions", "wrap")
CUT_OFF: Final = ("unauthenticated", "displaced", "unread")
AUDITED: Final = (
    *("access.denied", "access.metadata", "access.notes", "access.play", "access.search"),
    *("admin.config", "admin.token"),
    *("case.approved", "case.fulfilled", "case.received", "case.refused", "case.searched", "case.withdrawn"),
    "certificate.issued",
    *("flag.acknowledged", "flag.raised"),
    *(
        "hold.created",
        "hold.placing",
        "hold.reapplied",
        "hold.rebuilt",
        "hold.release_approved",
        "hold.release_rejected",
    ),
    *("hold.release_requested", "hold.release_withdrawn", "hold.reviewed", "hold.too_late"),
    *("keyring.destroyed", "keyring.generations_closed", "keyring.rotated", "keyring.rotation_intended"),
    *("policy.applied", "policy.approved", "policy.changed", "policy.rejected", "policy.requested"),
    "recorder.event",
    *("recording.aborted", "recording.facts_revised", "recording.flagged", "recording.pause_ended", "recording.paused"),
    *("recording.rebuilt", "recording.resumed", "recording.sealed", "recording.started", "recording.terminated"),
    *("recording.frames_left_out", "recording.misdeclared", "recording.truncated"),
    *("restore.found_forgotten", "restore.found_shredded", "restore.reconciled", "restore.started"),
    "restore.unknown_shredded",
    *("shred.done", "shred.intended"),
    *("sweep.completed", "sweep.override_approved", "sweep.override_rejected", "sweep.override_requested"),
    *("sweep.override_used", "sweep.started", "sweep.tripped"),
)
"""The event names of the audit trail, also those that only earlier versions wrote."""
_OWN_LOGGERS: Final = ("vault", "cli")
_ACK_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_STALE_SECONDS: Final = 300.0
_SWEEP_BUCKETS: Final = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800)


class LoopHistogram(Collector):
    """A histogram that only the event loop observes, so it needs no lock; it has no labels.

    The library's own histogram takes several microseconds an observation, half as long as sealing a piece.
    """

    def __init__(self, name: str, documentation: str, *, buckets: Sequence[float]) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = tuple(buckets)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the cumulative buckets."""
        totals = list(accumulate(self._counts))
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        buckets = list(zip(bounds, totals, strict=True))
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=self._sum)


class CatalogGauges(Collector):
    """Gauges that are read from the catalog together. They are exported only while recent, so that an outage shows.

    The reader gives `aged_by` a function that returns how many seconds ago they were read.
    """

    def __init__(self, ns: str) -> None:
        self._age: Callable[[], float] = lambda: float("inf")
        self._name = f"{ns}_catalog_age_seconds"
        self._registry = CollectorRegistry()

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"{ns}_{name}", text, labels, registry=self._registry)

        self.recordings = gauge("recordings", "Catalog rows", "state")
        self.holds_active = gauge("holds_active", "Holds in force", "kind")
        self.holds_review_overdue = gauge("holds_review_overdue", "Holds in force past their review date")
        self.hold_labels_waiting = gauge("hold_labels_waiting", "Holds in force that not all their objects show yet")
        self.hold_labels_failed = gauge(
            "hold_labels_failed", "Recordings whose objects do not show whether a hold keeps them; tried again"
        )
        self.tokens_expiring = gauge("tokens_expiring", "Tokens in force that expire within 14 days", "role")
        self.alerts_pending = gauge("alerts_pending", "Alerts that no webhook has acknowledged")
        self.alert_oldest = gauge("alert_oldest_seconds", "Age of the oldest alert that no webhook has acknowledged")
        self.sweep_overdue = gauge("sweep_overdue_seconds", "Age of the oldest recording that is due and not shredded")

    def aged_by(self, age: Callable[[], float]) -> None:
        """Ask `age` how many seconds ago the gauges were read."""
        self._age = age

    def collect(self) -> Iterator[Metric]:
        """Yield the age, and the gauges if they are less than five minutes old."""
        age = self._age()
        yield GaugeMetricFamily(self._name, "Time since the gauges that come from the catalog were read", value=age)
        if age < _STALE_SECONDS:
            yield from self._registry.collect()


class _One(Collector):
    """One family and nothing else."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        """Yield the family."""
        yield self._family


class Exposition:
    """The text of a registry as the library writes it, several times faster.

    A scrape keeps the event loop from its other work. The library writes names and labels anew each time, here only the
    values are.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._heads: dict[str, str] = {}
        self._series: dict[tuple[str, ...], str] = {}

    def text(self) -> bytes:
        """Return all families in the Prometheus text format."""
        parts: list[str] = []
        for family in self._registry.collect():
            head = self._heads.get(family.name)
            if head is None:
                empty = Metric(family.name, family.documentation, family.type)
                head = self._heads[family.name] = generate_latest(_One(empty)).decode()
            parts.append(head)
            for sample in family.samples:
                series = (sample.name, *sample.labels.values())
                before = self._series.get(series) or self._learn(family, sample, series)
                value = floatToGoString(sample.value) if sample.value else "0.0"  # type: ignore[no-untyped-call]
                parts.append(f"{before}{value}\n")
        return "".join(parts).encode()

    def _learn(self, family: Metric, sample: Sample, series: tuple[str, ...]) -> str:
        """Return what stands before the value, as the library writes it."""
        alone = Metric(family.name, family.documentation, family.type)
        alone.samples.append(sample)
        line = generate_latest(_One(alone)).decode().removesuffix("\n").rpartition("\n")[2]
        before = self._series[series] = line[: line.rindex(" ") + 1]
        return before


class Metrics:
    """The metrics of the vault (prefix `callvault_`, base units, no personal or per-recording labels).

    A counter is declared with all values of its labels, and each series starts at 0: an alert on a rate would not see
    the first event of a series that begins with it.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        # When each series began: a third of the text, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry
        self.exposition = Exposition(registry)
        ns = "callvault"
        self.catalog = CatalogGauges(ns)
        registry.register(self.catalog)

        def counter(
            name: str, text: str, *, only: Iterable[tuple[str, ...]] | None = None, **labels: Iterable[str]
        ) -> Counter:
            made = Counter(f"{ns}_{name}", text, tuple(labels), registry=registry)
            for values in (only or product(*labels.values())) if labels else ():
                made.labels(*values)
            return made

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"{ns}_{name}", text, labels, registry=registry)

        def histogram(
            name: str, text: str, *, buckets: tuple[float, ...] = _ACK_BUCKETS, **labels: Iterable[str]
        ) -> Histogram:
            made = Histogram(f"{ns}_{name}", text, tuple(labels), registry=registry, buckets=buckets)
            for values in product(*labels.values()) if labels else ():
                made.labels(*values)
            return made

        self.ingest_bytes = counter("ingest_bytes_total", "Audio bytes made durable", dialect=DIALECTS)
        self.ingest_open = gauge("ingest_open_recordings", "Recordings with an upload or grace period under way")
        self.ingest_ack = LoopHistogram(
            f"{ns}_ingest_ack_seconds", "Time from a piece's arrival to its durability", buckets=_ACK_BUCKETS
        )
        registry.register(self.ingest_ack)
        self.ingest_refused = counter("ingest_refused_total", "Uploads refused", reason=error_codes())
        self.share_used = gauge("share_used", "How much of a shared resource is in use", "resource")
        self.share_capacity = gauge("share_capacity", "How much of a shared resource this process has", "resource")
        self.share_waiting = gauge("share_waiting", "Tenants that were refused lately and may come back", "resource")
        self.share_refused = counter(
            "share_refused_total",
            "Refusals of more of a shared resource",
            resource=SHARED,
            reason=(Ruling.FULL, Ruling.SHARE),
        )
        self.share_displaced = counter(
            "share_displaced_total", "Uses that were ended for a tenant with less", resource=SHARED
        )
        self.stated_starts = counter(
            "recording_starts_total",
            "Recordings begun, by the effect of the stated start on their retention",
            effect=StartEffect,
        )
        self.pauses_ended = counter("pauses_ended_total", "Pauses that lasted too long and that the vault ended")
        self.facts_left_out = counter(
            "facts_left_out_total",
            "Facts that recorders stated and that could not be kept; the audio was kept",
            fact=KINDS,
            reason=Unusable,
        )
        self.misdeclared = counter(
            "misdeclared_recordings_total",
            "Recordings whose first bytes are not what was declared; they are kept as they came",
            declared=Container,
            content=Content,
            only=DIFFERENCES,
        )
        self.frames_left_out = counter(
            "frames_left_out_total",
            "Frames of live calls that could not be read and were left out",
            dialect=IN_FRAMES,
            reason=Broken,
        )
        self.connections = gauge("connections", "Connections, by whether a valid credential came over them", "state")
        self.connections_ended = counter("connections_ended_total", "Connections refused or cut off", reason=CUT_OFF)
        self.undurable_bytes = gauge("undurable_bytes", "Bytes received from recorders that are not yet durable")
        self.journal_bytes = gauge("journal_bytes", "Journal bytes on disk")
        self.journal_commit = histogram("journal_commit_seconds", "One group commit: write and fdatasync")
        self.segment_put = histogram(
            "segment_put_seconds", "One object put and its verification", store=STORES, outcome=("ok", "error")
        )
        self.segments_pending = gauge("segments_pending", "Segments cut and not yet stored")
        self.alerts = counter("alerts_total", "Attempts to deliver an alert", outcome=("acknowledged", "failed"))
        self.sweep_tripped = counter("sweep_tripped_total", "Sweeps that postponed early deletions of a tenant")
        self.sweep_tripped_tenants = gauge(
            "sweep_tripped_tenants", "Tenants whose early deletions the last sweep postponed"
        )
        self.sweep_duration = histogram("sweep_duration_seconds", "One sweep", buckets=_SWEEP_BUCKETS)
        self.shredded = counter("shredded_total", "Recordings shredded", trigger=("expiry", "erasure"))
        self.certificates = counter("certificates_total", "Certificates issued", status=CertificateStatus)
        self.keyring_epoch = gauge("keyring_epoch", "The live epoch")
        self.keyring_replicas = gauge("keyring_replicas", "Replicas that are configured")
        self.keyring_replicas_ok = gauge(
            "keyring_replicas_ok", "Replicas that have the live head; 0 without a check within a lease"
        )
        self.keyring_lease = gauge(
            "keyring_lease_seconds", "How long keys may still be derived; negative if they may not"
        )
        self.root_provider = histogram(
            "root_provider_seconds", "One root-key provider call", op=ROOT_OPERATIONS, outcome=("ok", "unavailable")
        )
        self.denials = counter("denials_total", "Requests denied to a token", why=Why)
        self.audit_events = counter(
            "audit_events_total", "Audit entries written", event=AUDITED, outcome=("ok", "refused")
        )
        self.build_info = gauge("build_info", "Always 1", "version")
        self.build_info.labels(__version__).set(1)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: constant message, fields from `extra={"fields": {...}}`, request id from context."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line of JSON."""
        line: dict[str, object] = {
            "at": rfc3339(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        rid = getattr(record, "request_id", None) or request_id.get()
        if rid:
            line["request_id"] = rid
        line.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[0]:
            # Only the type and the place: an exception's arguments may quote a request.
            line["exception"] = record.exc_info[0].__name__
            frame = record.exc_info[2]
            while frame is not None and frame.tb_next is not None:
                frame = frame.tb_next
            if frame is not None:
                line["where"] = f"{frame.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.tb_lineno}"
        return json.dumps(line, default=str, separators=(",", ":"))


def configure_logging(*, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send log records as JSON to `stream` (standard error by default).

    `level` applies to the vault's own records. Libraries stay at INFO or above: at DEBUG they log statements with their
    parameters and requests with their headers.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # It logs an error for each malformed request, so anyone could flood the log.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    # Its warnings quote subprotocols, which may be tokens.
    logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)
    # It logs each of its plugins at every start.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    set_level(level)


def set_level(level: str) -> None:
    """Change the level of the vault's own loggers; libraries stay at INFO or above."""
    for name in _OWN_LOGGERS:
        logging.getLogger(name).setLevel(level.upper())
    logging.getLogger().setLevel(max(logging.getLevelName(level.upper()), logging.INFO))
