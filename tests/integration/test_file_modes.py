"""Whoever shares the machine reads nothing of a vault, whatever the umask."""

from __future__ import annotations

import os
from pathlib import Path

from tests.helpers.app import PCMU, TENANTS, running
from vault.model import Role


async def test_every_file_is_its_owners_alone_but_the_public_key(tmp_path: Path) -> None:
    before = os.umask(0o000)
    try:
        async with running(tmp_path) as app:
            sent = {"Content-Type": PCMU}
            place = f"/v1/ingest/{TENANTS[0]}/modes-1"
            assert (await app.ask("PUT", place, Role.RECORDER, data=b"\xff" * 160, headers=sent)).status == 201
    finally:
        os.umask(before)
    found = {path: path.stat().st_mode & 0o777 for path in (tmp_path / "data").rglob("*")}
    assert len(found) > 20
    assert {path.name: oct(mode) for path, mode in found.items() if mode & 0o077 and path.suffix != ".pub"} == {}
