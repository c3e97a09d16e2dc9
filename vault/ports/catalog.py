"""The catalog: rows about recordings, holds, shreds, certificates, tenants, tokens and the audit trail; no keys.

Every method of every subject is one serialisable transaction, durable when it returns, and raises Unavailable when the
database cannot answer. `audit` events are written in the same transaction as the change they describe, so neither
exists without the other. A service takes the subjects that it asks, never the whole; only whoever opens a vault holds
that.
"""

from __future__ import annotations

from typing import Protocol

from vault.ports.audit import AuditLookup, AuditTraces, AuditTrail
from vault.ports.cluster import NodeRows
from vault.ports.erasures import ErasureRows
from vault.ports.holds import AlertRows, FlagRows, HoldPages, HoldRows, HoldTermsLookup, LabelRows
from vault.ports.policies import PolicyRows
from vault.ports.recordings import (
    CountUpkeep,
    DueCounts,
    DueRows,
    IndexRows,
    LeafRows,
    NoteRows,
    OpenRecordingRows,
    RecordingCounts,
    RecordingGauges,
    RecordingLookup,
    RecordingSearch,
    RecordingsLookup,
)
from vault.ports.repeats import KeyedRows
from vault.ports.rescue import BackupRows, BlankCatalog, RescueRows, Schema
from vault.ports.shreds import CertificateLookup, CertificateTexts, CertifyingRows, OverrideRows, ShredRows
from vault.ports.tenants import IdLookup, SettingRows, TenantRows, TokenRows


class Catalog(
    RecordingLookup,
    RecordingsLookup,
    RecordingSearch,
    RecordingCounts,
    RecordingGauges,
    CountUpkeep,
    OpenRecordingRows,
    LeafRows,
    DueRows,
    DueCounts,
    NoteRows,
    IndexRows,
    NodeRows,
    HoldRows,
    LabelRows,
    FlagRows,
    AlertRows,
    ShredRows,
    CertificateLookup,
    CertificateTexts,
    CertifyingRows,
    OverrideRows,
    ErasureRows,
    PolicyRows,
    TenantRows,
    TokenRows,
    AuditTrail,
    AuditLookup,
    AuditTraces,
    SettingRows,
    IdLookup,
    KeyedRows,
    Schema,
    HoldTermsLookup,
    HoldPages,
    Protocol,
):
    """All rows, one database."""


class RestorableCatalog(Catalog, BackupRows, RescueRows, BlankCatalog, Protocol):
    """A catalog that can be dumped, loaded, and brought up to what keyring and objects say."""
