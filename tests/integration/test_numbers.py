"""Known numbers, then the shred of their metadata: neither the catalog nor any copy of it tells or links them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from tests.helpers.app import PURPOSE, App, running, sound
from tests.helpers.crashing import memory_directory
from tests.helpers.phone_numbers import number_in
from tests.helpers.tenants import metadata_kept
from vault.crypto.values import Field, token
from vault.errors import Shredded
from vault.ids import RecordingId, TenantId, id_bytes
from vault.model import INDEX_LEAF, Coordinate, Part, Role
from vault.services.recordings.search import facts_of
from vault.storage.catalog.rows import own_token

TENANT = TenantId("northfield")
NUMBER = "+442079460123"
HEADERS = {"Call-From": "020 7946 0123", "Call-To": "+44 (0)1632 960 987", "Call-Tags": "020-7946-0123"}
AUDIO = sound(2_000)
VALUES = [(field, value) for field in Field for value in (NUMBER, "+441632960987", "02079460123", f"pbx~{NUMBER}~1")]


def copies(app: App, name: str) -> dict[str, bytes]:
    """Return the catalog's files as they lie there, and a backup made by SQLite itself."""
    path = app.config.catalog_path
    found = {f"{name} {each.name}": each.read_bytes() for each in path.parent.glob(f"{path.name}*")}
    assert {f"{name} {path.name}{each}" for each in ("", "-wal", "-shm")} <= found.keys()
    backup = path.parent / f"{name}.sqlite"
    with sqlite3.connect(path) as live, sqlite3.connect(backup) as copy:
        live.backup(copy)
    live.close()
    copy.close()
    return {**found, f"{name} backup": backup.read_bytes()}


def rows(backup: Path) -> Mapping[str, tuple[str | None, str | None, str]]:
    with sqlite3.connect(backup) as opened:
        found = opened.execute("SELECT id, caller_token, called_token, call_token FROM recordings").fetchall()
    opened.close()
    return {f"rec_{each[0].hex()}": each[1:] for each in found}


def tokens_of_live_keys(app: App) -> set[str]:
    """Return every token that a holder of the keyring can compute for the numbers it suspects."""
    keyring = app.vault.keyring
    computed: set[str] = set()
    for cohort in keyring.cohorts(TENANT, Part.METADATA):
        for leaf in (*range(300), INDEX_LEAF):
            try:
                key = keyring.derive(Coordinate(cohort=cohort, leaf=leaf))
            except Shredded:
                continue
            computed |= {token(key, field, value) for field, value in VALUES}
    return computed


async def months_of_calls(app: App) -> list[str]:
    """Store two calls of one caller in each of two months; return the ids of the first month's and of the second's."""
    recordings = []
    for month in range(2):
        if month:
            app.clock.advance(days=32)
        recordings += [await app.upload(f"pbx~{NUMBER}~{month}{n}", AUDIO, headers=HEADERS) for n in range(2)]
    return recordings


async def test_no_copy_of_the_catalog_ever_holds_a_number():
    with memory_directory() as base:
        async with running(base) as app:
            await months_of_calls(app)
            found = await asyncio.to_thread(copies, app, "before")
            assert {name: number for name, hay in found.items() if (number := number_in(hay))} == {}
            planted = found["before backup"] + b"..(020) 7946-0123.."
            assert number_in(planted) == "caller", "the search finds nothing because it cannot find anything"


async def test_after_the_shred_neither_the_catalog_nor_a_copy_names_or_links_a_caller():
    with memory_directory() as base:
        async with running(base) as app:
            recordings = await months_of_calls(app)
            old, new = recordings[:2], recordings[2:]
            taken = await asyncio.to_thread(copies, app, "before")
            known = await asyncio.to_thread(rows, app.config.catalog_path.parent / "before.sqlite")
            dead = {each for recording in old for each in known[recording] if each}
            kept_rows = [await app.vault.catalog.recording(RecordingId(each)) for each in recordings]
            # Within a month the index does what it is for; across months it links nothing, whoever has the catalog.
            assert known[old[0]][:2] == known[old[1]][:2]
            assert known[new[0]][:2] == known[new[1]][:2]
            assert not dead & {each for recording in new for each in known[recording]}
            assert dead & tokens_of_live_keys(app), "with its key, a token can be recomputed"
            await metadata_kept(app.vault, "northfield", days=1)
            await app.sweep()
            assert not dead & tokens_of_live_keys(app)
            assert [facts_of(app.vault.keyring, row) is None for row in kept_rows] == [True, True, False, False]
            after = await asyncio.to_thread(copies, app, "after")
            with sqlite3.connect(app.config.catalog_path) as opened:
                opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            opened.close()
            checkpointed = {"checkpointed": await asyncio.to_thread(app.config.catalog_path.read_bytes)}
            every = {**taken, **after, **checkpointed}
            assert {name: each for name, hay in every.items() if (each := number_in(hay))} == {}
            # In the live rows what the key sealed, and what found it, is gone too.
            live = await asyncio.to_thread(rows, app.config.catalog_path.parent / "after.sqlite")
            for recording in old:
                assert live[recording] == (None, None, own_token(id_bytes(recording)))
                assert (await app.vault.catalog.recording(RecordingId(recording))).sealed_facts == b""
            found = await app.ask("POST", "/v1/recordings/search", body={"caller": NUMBER}, headers=PURPOSE)
            assert {each["id"] for each in found.json["recordings"]} == set(new)


async def test_a_call_key_stays_known_across_months_and_restarts_as_long_as_its_metadata():
    with memory_directory() as base:
        async with running(base) as app:
            recordings = await months_of_calls(app)
            again = await app.ask(
                "PUT",
                f"/v1/ingest/northfield/pbx~{NUMBER}~00",
                Role.RECORDER,
                data=AUDIO,
                headers={"Content-Type": "audio/PCMU;rate=8000;channels=1"},
            )
            assert (again.status, again.json["recording_id"]) == (200, recordings[0])
            assert len((await app.ask("GET", "/v1/recordings")).json["recordings"]) == len(recordings)
            head = await app.ask("HEAD", f"/v1/ingest/northfield/pbx~{NUMBER}~11", Role.RECORDER)
            assert head.headers["Recording-Id"] == recordings[3]
