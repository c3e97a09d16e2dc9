"""The audit trail as a test reads it: what was exported, read back."""

from collections.abc import Sequence

from cli.audit import parse_entries
from vault.ids import TenantId
from vault.model import AuditEntry
from vault.ports.audit import AuditLookup, AuditQuery


async def audit_entries(
    catalog: AuditLookup, *, after: int = 0, limit: int = 1000, tenant: TenantId | None = None
) -> Sequence[AuditEntry]:
    """Return up to `limit` entries after a number, in order."""
    lines = await catalog.audit_lines(AuditQuery(beyond=after, limit=limit, tenant=tenant))
    entries = list(parse_entries(line.text.encode() for line in lines))
    assert [entry.seq for entry in entries] == [line.seq for line in lines]
    return entries
