"""`callvault backup` as people and programs see it: what it prints, where, and how it ends."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from cli.main import main
from tests.helpers.catalog_template import transaction
from tests.helpers.restores import Site
from vault.storage.catalog import schema

CONFIG = """\
[retention]
default = "10d"
cohort_width = "1d"
release_grace = "1d"
[segments]
max_bytes = "64KiB"
[journal]
file_bytes = "1MiB"
max_bytes = "64MiB"
disk_reserve = "1MiB"
"""


class Scene(Site):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        (base / "config.toml").write_text(CONFIG)
        asyncio.run(self.life())

    async def life(self):
        await self.create()
        async with self.open() as vault:
            self.kept = await self.record(vault, "kept", days=100)
            self.brief = await self.record(vault, "brief", days=20)

    async def go_on(self):
        async with self.open() as vault:
            self.newer = await self.record(vault, "newer", days=100)
            await self.hold(vault, self.newer.id)
            self.clock.advance(days=30)
            assert await self.sweep(vault) == 1

    def run(self, *words: str) -> int:
        return main(["backup", *words, "--config", str(self.base / "config.toml")])


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


@pytest.fixture
def place(scene):
    return str(scene.base / "backups")


def document(capsys):
    shown = capsys.readouterr()
    return json.loads(shown.out)


def test_a_backup_is_made_listed_and_verified(scene, place, capsys):
    assert scene.run("create", place) == 0
    shown = capsys.readouterr()
    assert "objects copied" in shown.out
    assert shown.err.splitlines() == ["step: catalog", "step: objects"]
    assert scene.run("create", place, "--json") == 0
    again = document(capsys)
    assert (again["recordings"], again["objects"], again["objects_copied"]) == (2, 4, 0)
    assert scene.run("list", place) == 0
    assert again["backup"] in capsys.readouterr().out
    assert scene.run("list", place, "--json") == 0
    assert [each["backup"] for each in document(capsys)["backups"]][1] == again["backup"]
    assert scene.run("verify", place, again["backup"], "--quick", "--json") == 0
    assert document(capsys)["problems"] == []
    assert scene.run("prune", place, "--keep-days", "0", "--json") == 0
    assert document(capsys)["kept"] == [again["backup"]]


def test_without_objects_a_backup_has_the_catalog_alone(scene, place, capsys):
    assert scene.run("create", place, "--no-objects", "--json") == 0
    assert document(capsys)["objects"] is None
    assert scene.run("verify", place) == 0


def test_verify_exits_with_5_and_says_what_is_wrong(scene, place, capsys):
    assert scene.run("create", place) == 0
    victim = next((scene.base / "backups/objects/pool").rglob("0*#object"))
    victim.unlink()
    capsys.readouterr()
    assert scene.run("verify", place) == 5
    shown = capsys.readouterr()
    assert "is missing from the pool" in shown.err
    assert shown.err.count("error:") == 1


def test_a_restore_says_what_it_found(scene, place, capsys):
    assert scene.run("create", place) == 0
    asyncio.run(scene.go_on())
    assert scene.run("restore", place) == 3
    assert "nothing was restored over it" in capsys.readouterr().err
    scene.lose_catalog()
    assert scene.run("restore", place) == 0
    shown = capsys.readouterr()
    assert (
        shown.out == "2 restored, 1 of them newer and rebuilt, 1 shredded since and gone, 1 hold rebuilt from its pin\n"
    )
    assert scene.brief.id in shown.err
    assert "callvault holds list" in shown.err
    assert scene.run("restore", place) == 3
    assert "is restored already" in capsys.readouterr().err


def test_a_restore_answers_programs_with_counts(scene, place, capsys):
    assert scene.run("create", place) == 0
    scene.lose_catalog()
    capsys.readouterr()
    assert scene.run("restore", place, "--json") == 0
    found = document(capsys)
    assert (found["surviving"], found["shredded"], found["objects"]["lost"]) == (2, 0, 0)


def test_an_object_that_nobody_has_any_more_ends_a_restore_with_5(scene, place, capsys):
    assert scene.run("create", place) == 0
    scene.lose_catalog()
    for path in [*scene.base.rglob(f"*/{scene.kept.id}/0*#object")]:
        path.unlink()
    capsys.readouterr()
    assert scene.run("restore", place) == 5
    shown = capsys.readouterr()
    assert shown.out.startswith("2 restored")
    assert f"missing from store and backup: v1/northfield/{scene.kept.audio.cohort.period}/{scene.kept.id}" in shown.err


def test_what_cannot_be_done_says_so_by_its_exit_code(scene, place, monkeypatch, capsys):
    assert scene.run("create", place) == 0
    monkeypatch.chdir(scene.base)
    for words, code in (
        (("verify", "backups", "nonsense"), 2),
        (("verify", "backups", "bak_" + "0" * 32), 4),
        (("verify", "nowhere"), 7),
        (("list", "gopher://x"), 2),
        (("create", "s3://bucket/x"), 7),
    ):
        capsys.readouterr()
        assert scene.run(*words) == code, words
        assert capsys.readouterr().err.splitlines()[0].startswith("error: "), words


# A row of an object once had its name, and digits for bytes.
OLDER_OBJECTS = {
    "attempt": "lower(hex(attempt))",
    "sha256": "lower(hex(sha256))",
    "name": "(SELECT 'v1/' || tenant || '/' || audio_period || '/rec_' || lower(hex(id)) || '/' FROM newer.recordings"
    " WHERE id = recording) || CASE number WHEN -1 THEN 'manifest'"
    " ELSE printf('%06d', number) || '-' || lower(hex(attempt)) || '.seg' END",
}


def age(path: Path, revision: str) -> None:
    """Put the catalog back to an older schema, with the rows that it had a place for."""
    older = path.with_name("older.db")
    with transaction(older) as connection:
        schema.upgrade_to(connection, revision)
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = 1")
    with closing(sqlite3.connect(older)) as connection:
        connection.execute("ATTACH ? AS newer", (str(path),))
        for (table,) in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall():
            if table == "alembic_version":
                continue
            there, here = (
                [row[1] for row in connection.execute(f"PRAGMA {name}.table_info({table})")]
                for name in ("newer", "main")
            )
            spelled = OLDER_OBJECTS if table == "segments" and "name" in here else {}
            columns = [name for name in here if name in there or name in spelled]
            values = ", ".join(spelled.get(name, name) for name in columns)
            connection.execute(f"DELETE FROM main.{table}")
            connection.execute(f"INSERT INTO main.{table} ({', '.join(columns)}) SELECT {values} FROM newer.{table}")
        connection.commit()
    for leftover in path.parent.glob(f"{path.name}-*"):
        leftover.unlink()
    older.replace(path)


def test_an_older_catalog_is_backed_up_before_its_upgrade_and_comes_back_upgraded(scene, place, capsys):
    age(scene.config.catalog_path, "0020")
    assert scene.run("create", place, "--json") == 0
    made = document(capsys)
    assert (made["schema_revision"], made["recordings"], made["objects"]) == ("0020", 2, 4)
    assert scene.run("verify", place) == 0
    capsys.readouterr()
    upgrade = ["catalog", "upgrade", "--config", str(scene.base / "config.toml"), "--json"]
    assert main(upgrade) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"upgraded": True}
    steps = shown.err.splitlines()
    assert [line.split(",")[0] for line in steps] == [
        f"step: schema {number:04}" for number in range(21, 21 + len(steps))
    ]
    assert main(upgrade) == 0
    assert json.loads(capsys.readouterr().out) == {"upgraded": False}
    scene.lose_catalog()
    assert scene.run("restore", place) == 0

    async def listen():
        async with scene.open() as vault:
            await scene.survives(vault, scene.kept.id, scene.brief.id)

    asyncio.run(listen())


def test_a_lost_catalog_beside_the_keyring_is_never_taken_for_a_new_vault(scene, place, capsys):
    config = ["--config", str(scene.base / "config.toml")]
    scene.lose_catalog()
    # A process of its own: serving sets up the log and signals of the whole process.
    command = [sys.executable, "-m", "cli", "serve", *config]
    served = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert served.returncode == 7
    assert "callvault backup restore DEST" in served.stderr
    for words in (["init"], ["journal", "status"], ["catalog", "upgrade"], ["backup", "create", place]):
        capsys.readouterr()
        assert main([*words, *config]) == 7, words
        shown = capsys.readouterr().err
        assert "callvault backup restore DEST" in shown, words
        assert "run callvault init" not in shown, words
    assert main(["doctor", *config]) == 5
    assert "callvault backup restore DEST" in capsys.readouterr().err
    scene.config.journal_path.rename(scene.base / "elsewhere")
    assert main(["init", *config]) == 7
    assert "but the vault's keyring is at" in capsys.readouterr().err
    assert not scene.config.catalog_path.exists()
