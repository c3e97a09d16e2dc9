"""What is true of a catalog after a kill."""

from pathlib import Path

from tests.helpers.catalogs import ACME, SteppingClock, segment
from tests.helpers.trail import audit_entries
from vault.certificates.audit_chain import verify_chain
from vault.model import MANIFEST_INDEX, RecordingState
from vault.storage.catalog import open_catalog
from vault.storage.postgres import PostgresSettings


async def check(place: Path | PostgresSettings, acknowledged: list[str]) -> int:
    """Reopen, and compare with what was acknowledged; return how many audit entries there are."""
    catalog = open_catalog(place, clock=SteppingClock())
    await catalog.check_schema()
    entries = await audit_entries(catalog, limit=1_000_000)
    head = verify_chain(entries)
    assert head == await catalog.audit_head()
    audited = {(entry.event.event, entry.event.target) for entry in entries}
    for line in acknowledged:
        act, call_token = line.split()
        row = await catalog.recording_by_call(ACME, [call_token])
        assert row is not None
        assert ("recording.started", call_token) in audited
        if act == "sealed":
            assert row.state is RecordingState.SEALED
            assert await catalog.segments(row.id) == [segment(row, MANIFEST_INDEX), segment(row)]
            assert ("recording.sealed", call_token) in audited
    # And the other way round: an audited act happened, acknowledged or not.
    started = {target for name, target in audited if name == "recording.started"}
    counts = await catalog.count_recordings()
    assert len(started) == sum(counts.values())
    assert len(entries) - len(started) == counts[RecordingState.SEALED]
    assert await catalog.miscounted() == []
    await catalog.close()
    return len(entries)
