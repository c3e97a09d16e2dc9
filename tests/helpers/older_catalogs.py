"""Catalogs of earlier schemas, with rows."""

import sqlalchemy as sa

from tests.helpers.catalogs import ACME, OTHER
from vault.format.names import manifest_name, segment_name
from vault.ids import RecordingId
from vault.storage.catalog import schema

DAY = 86_400_000_000
HOUR = DAY // 24
FIRST_DAY = 20_500


def fill(connection: sa.Connection, revision: str, recordings: int) -> None:
    """Make the schema of `revision`, with this many recordings over ten days and two or three objects of each."""
    schema.upgrade_to(connection, revision)
    tables = sa.MetaData()
    tables.reflect(connection)

    def insert(name, found):
        columns = tables.tables[name].columns.keys()
        connection.execute(
            sa.insert(tables.tables[name]), [{key: row[key] for key in columns if key in row} for row in found]
        )

    rows = [_recording(number) for number in range(recordings)]
    insert("recordings", rows)
    insert("segments", [each for row in rows for each in _objects(row)])
    insert("certificates", [_certificate(row) for row in rows if row["state"] == "shredded"])
    if "object_lists" in tables.tables:
        insert("object_lists", [{"recording": row["id"], "objects": list_of(row["id"])} for row in rows[2::4]])
    insert("audit", [_entry(number) for number in range(1, recordings + 1)])
    if "recording_counts" in tables.tables:
        connection.exec_driver_sql(
            "INSERT INTO recording_counts SELECT tenant, state, count(*) FROM recordings GROUP BY tenant, state"
        )


def list_of(recording: bytes) -> bytes:
    """Return what stands for the list of deleted objects of a shredded recording."""
    return b"objects of " + recording


def rows_of(connection: sa.Connection) -> dict[str, list[tuple]]:
    """Return every row of every table of the present schema."""
    tables = sa.MetaData()
    tables.reflect(connection)
    return {
        name: [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key.columns))]
        for name, table in tables.tables.items()
        if name != "page_tags"  # drawn anew by each upgrade
    }


def _recording(number):
    state = ("sealed", "open", "shredded", "truncated")[number % 4]
    at = FIRST_DAY * DAY + number * 1000
    key = (number << 80 | 7 << 76 | 2 << 62 | number).to_bytes(16)
    return {
        "id": key,
        "tenant": (ACME, OTHER)[number % 3 == 0],
        "call_token": f"{number:032x}",
        "call_key": f"call-{number}",
        "state": state,
        "audio_period": FIRST_DAY + number % 10,
        "audio_generation": 0,
        "audio_leaf": number,
        "metadata_period": 8,
        "metadata_generation": 0,
        "metadata_leaf": number,
        "container": "raw",
        "codec": "pcmu",
        "rate": 8000,
        "channels": 1,
        "channel_map": "[]",
        "created_at": at,
        "started_at": at,
        "ended_at": None if state == "open" else at + 60_000_000,
        "retain_until": at + (number % 10) * DAY,
        "retention_class": "default",
        "stored_bytes": 480_000,
        "sealed_facts": b"sealed",
        "certificate_id": f"cert_{number:032x}" if state == "shredded" else None,
    }


def _objects(row):
    place = row["tenant"], row["audio_period"], RecordingId(f"rec_{row['id'].hex()}")
    number = row["audio_leaf"]
    common = {"recording": row["id"], "sha256": f"{number:064x}", "object_bytes": 1000}
    if row["state"] != "open":
        yield {**common, "number": -1, "attempt": "", "name": manifest_name(*place), "start": 0, "length": 0}
    for index in range(2):
        attempt = f"{number * 2 + index:032x}"
        name = segment_name(*place, index, attempt)
        yield {**common, "number": index, "attempt": attempt, "name": name, "start": index * 900, "length": 900}


def _certificate(row):
    return {
        "id": row["certificate_id"],
        "recording": row["id"],
        "tenant": row["tenant"],
        "status": "provisional",
        "issued_at": row["created_at"],
        "jws": "a.b.c",
        "parts": "audio",
    }


def _entry(number):
    return {
        "seq": number,
        "at": FIRST_DAY * DAY + (number // 3 - 3 * (number % 10 == 0)) * HOUR,  # every tenth time the clock is behind
        "event": "recording.started",
        "actor": f"tok_{number % 3:032x} recorder",
        "outcome": "ok",
        "tenant": "acme",
        "target": f"rec_{number:032x}",
        "detail": "{}",
        "previous_sha256": bytes(32),
        "sha256": bytes(32),
    }
