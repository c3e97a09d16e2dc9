"""The auditor's attack on everything a vault ever wrote, and the proofs that it would notice."""

from __future__ import annotations

import asyncio
import json
import shutil

import pytest

from cli.main import main
from tests.helpers.crashing import memory_directory
from tests.helpers.restores import Site
from tests.helpers.soak import sampled
from vault.crypto.derive import Purpose, subkey
from vault.model import DataKey
from vault.ports.progress import Silent
from vault.wiring.proof import prove_erasure, prove_restore

EVERYTHING = 1 << 40


class Scene(Site):
    """A site, and copies of all its files from several times of its life."""

    def copy(self, name: str, *, root_keys: bool = False) -> None:
        ignored = () if root_keys else ("root-keys",)
        shutil.copytree(self.base / "data", self.base / "copies" / name, ignore=shutil.ignore_patterns(*ignored))

    async def live(self) -> None:
        """Record, copy, hold, back up, copy, shred, record again, copy."""
        await self.create()
        async with self.open() as vault:
            self.doomed = await self.record(vault, "doomed", days=1, size=300)
            self.held = await self.record(vault, "held", days=1, size=300)
            self.kept = await self.record(vault, "kept", days=100, size=300)
            await self.hold(vault, self.held.id)
            self.copy("before")
            self.keys = {row.id: vault.keyring.derive(row.audio).material for row in (self.doomed, self.kept)}
            await self.back_up()
            self.clock.advance(days=3)
            assert await self.sweep(vault) == 1
            self.copy("after")
        shutil.copytree(self.destination, self.base / "copies" / "backup")

    async def attack(self, *, windows: int = 0, recording=None):
        return await prove_erasure(
            self.config,
            [self.base / "copies"],
            recording=recording,
            window_bytes=windows,
            progress=Silent(),
            clock=self.clock,
        )


@pytest.fixture
async def scene():
    with memory_directory() as base:
        made = Scene(base)
        await made.live()
        yield made


def verdicts(proof):
    return {each.recording: (each.live, each.old, len(each.strikes), each.alarm) for each in proof.recordings}


async def test_everything_ever_written_and_todays_keys_open_survivors_and_nothing_shredded(scene):
    proof = await scene.attack()
    assert verdicts(proof) == {
        scene.doomed.id: (False, False, 0, ""),
        scene.held.id: (True, True, 0, ""),
        scene.kept.id: (True, True, 0, ""),
    }
    assert {each.recording: each.state for each in proof.recordings}[scene.doomed.id] == "shredded"
    assert proof.old.heads == 2, "two replicas have the same head; before and after have not"
    assert proof.old.opened_pages, "the copies of the live keyring open: the attack works"
    assert proof.found.opened_parts >= 3
    only = await scene.attack(recording=scene.doomed.id)
    assert [each.recording for each in only.recordings] == [scene.doomed.id]


@sampled("kind", {"data key": "data key", "input key": "input key"})
async def test_a_key_that_lies_in_clear_anywhere_is_found_at_any_offset(scene, kind):
    key = scene.keys[scene.doomed.id]
    planted = key if kind == "data key" else subkey(DataKey(key), Purpose.SEGMENT)
    (scene.base / "copies" / "a-forgotten-dump").write_bytes(b"x" * 16_380 + planted + b"y" * 50)
    proof = await scene.attack(windows=EVERYTHING, recording=scene.doomed.id)
    [strike] = proof.alarms[0].strikes
    assert (strike.offset, strike.kind, strike.origin.rpartition("/")[2]) == (16_380, kind, "a-forgotten-dump")
    assert proof.windows.covered_bytes == proof.windows.total_bytes


async def test_a_copy_of_the_file_providers_root_keys_beats_it_and_the_attack_says_so(scene):
    with memory_directory() as base:
        other = Scene(base)
        await other.create()
        async with other.open() as vault:
            row = await other.record(vault, "doomed", days=1, size=300)
            other.copy("everything", root_keys=True)
            other.clock.advance(days=3)
            assert await other.sweep(vault) == 1
        proof = await other.attack()
    assert [each.recording for each in proof.alarms] == [row.id]
    assert "a keyring in the artefacts opens it" in proof.alarms[0].alarm
    assert len(proof.found.root_keys) == 1


async def test_a_survivor_that_does_not_open_is_an_alarm_too(scene):
    for path in (scene.base / "copies").rglob("*#object"):
        data = bytearray(path.read_bytes())
        if scene.kept.id in str(path) and data[512:516] in (b"CVS1", b"CVM1"):
            message = 520 + int.from_bytes(data[516:520], "big")
            data[message + 30] ^= 1
            path.write_bytes(data)
    proof = await scene.attack(recording=scene.kept.id)
    assert [each.alarm for each in proof.recordings] == ["not shredded, and today's keyring does not open it"]


def test_the_command_prints_what_it_covered_and_exits_with_5_on_an_alarm(tmp_path, capsys):
    scene = Scene(tmp_path)
    (tmp_path / "config.toml").write_text(
        '[retention]\ndefault = "10d"\ncohort_width = "1d"\nrelease_grace = "1d"\n[segments]\nmax_bytes = "64KiB"\n'
    )
    asyncio.run(scene.live())
    config = ["--config", str(tmp_path / "config.toml")]
    assert main(["prove", "erasure", str(tmp_path / "copies"), "--windows", "2KiB", *config]) == 0
    shown = capsys.readouterr()
    assert "2,048 of" in shown.out
    assert "opens nothing" in shown.out
    assert main(["prove", "erasure", str(tmp_path / "copies"), "--windows", "0", "--json", *config]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["alarms"], len(document["recordings"])) == (0, 3)
    (tmp_path / "copies" / "0").write_bytes(scene.keys[scene.doomed.id])
    assert main(["prove", "erasure", str(tmp_path / "copies"), "--windows", "2KiB", "--json", *config]) == 5
    assert main(["prove", "erasure", str(tmp_path / "nowhere"), *config]) == 2
    assert main(["prove", "restore", str(tmp_path / "backups"), "--json", *config]) == 0
    capsys.readouterr()


async def test_a_restore_is_proved_without_touching_the_vault(scene):
    before = {path: path.read_bytes() for path in (scene.base / "data").rglob("*") if path.is_file()}
    proof = await prove_restore(scene.config, scene.destination, None, progress=Silent(), clock=scene.clock)
    assert (proof.readable, proof.readable_bytes, proof.gone, proof.problems) == (2, 600, 1, [])
    assert {path: path.read_bytes() for path in (scene.base / "data").rglob("*") if path.is_file()} == before


async def test_a_restore_that_would_lose_audio_is_not_proved(scene):
    pool = scene.base / "backups" / "objects" / "pool"
    path = next(path for path in pool.rglob("0*#object") if scene.kept.id in str(path))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    proof = await prove_restore(scene.config, scene.destination, None, progress=Silent(), clock=scene.clock)
    assert len(proof.problems) == 1
    assert scene.kept.id in proof.problems[0]
