"""What only the root-key provider on files does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.helpers.keyrings import TestClock
from vault.errors import ConfigError, Unavailable
from vault.format.codec import pack
from vault.keystore.replicas import Files
from vault.keystore.root import antiforensic
from vault.keystore.root.file import MATERIAL_BYTES, FileRootKeys, filesystem_findings, shares_blocks

KEY, AAD, TAG = b"k" * 32, b"place", b"t" * 64


@pytest.fixture
async def on_files(tmp_path) -> FileRootKeys:
    provider = FileRootKeys(tmp_path / "keys", clock=TestClock())
    await provider.create()
    return provider


async def test_versions_outlive_the_process(on_files, tmp_path):
    version = await on_files.new_version(TAG)
    blob = await on_files.wrap(version, KEY, AAD)
    again = FileRootKeys(tmp_path / "keys", clock=TestClock())
    assert await again.unwrap(version, blob, AAD) == KEY


async def test_after_a_destroy_no_window_of_any_remaining_file_opens_the_blob(on_files, tmp_path):
    gone, kept = await on_files.new_version(TAG), await on_files.new_version(TAG)
    blob = await on_files.wrap(gone, KEY, AAD)
    await on_files.destroy(gone)
    files = sorted((tmp_path / "keys").iterdir())
    assert [path.name for path in files] == sorted(["ROOT-KEYS", kept])
    aad = pack(["callvault/v1/root-wrap", gone, AAD])
    for path in files:
        data = path.read_bytes()
        # Windows at every offset of the header and of the first and last stripes, aligned ones in between.
        edge = 2048
        offsets = {*range(min(edge, len(data))), *range(max(0, len(data) - edge), len(data)), *range(0, len(data), 32)}
        for offset in offsets:
            if len(window := data[offset : offset + 32]) == 32:
                with pytest.raises(InvalidTag):
                    AESGCM(window).decrypt(blob[:12], blob[12:], aad)


class Recording(Files):
    """Keeps what a destroyed file held just before it was removed."""

    def __init__(self) -> None:
        self.removed: list[bytes] = []

    def unlink(self, path: Path) -> None:
        self.removed.append(path.read_bytes())
        super().unlink(path)


async def test_key_material_is_overwritten_in_place_before_the_file_is_removed(tmp_path):
    files = Recording()
    provider = FileRootKeys(tmp_path / "keys", clock=TestClock(), files=files)
    await provider.create()
    version = await provider.new_version(TAG)
    path = tmp_path / "keys" / version
    before, inode = path.read_bytes(), path.stat().st_ino
    assert inode
    await provider.destroy(version)
    (after,) = files.removed
    assert len(after) == len(before)
    material = len(before) - MATERIAL_BYTES
    same = sum(a == b for a, b in zip(before[material:], after[material:], strict=True))
    assert same < MATERIAL_BYTES / 128, "some of the material was left"


async def test_an_unfinished_version_is_overwritten_and_never_listed(tmp_path):
    files = Recording()
    provider = FileRootKeys(tmp_path / "keys", clock=TestClock(), files=files)
    await provider.create()
    left = tmp_path / "keys" / ".0011223344556677-0011223344556677.new"
    left.write_bytes(b"half a secret")
    assert await provider.versions() == {}
    await provider.new_version(TAG)
    assert not left.exists()
    assert files.removed != [b"half a secret"]
    assert len(files.removed) == 1


async def test_a_missing_or_unmarked_directory_is_unavailable_never_destroyed(on_files, tmp_path):
    version = await on_files.new_version(TAG)
    blob = await on_files.wrap(version, KEY, AAD)
    directory = tmp_path / "keys"
    directory.rename(tmp_path / "unmounted")
    for state in ("missing", "empty"):
        if state == "empty":
            directory.mkdir()
        for call in (
            on_files.unwrap(version, blob, AAD),
            on_files.destroy(version),
            on_files.versions(),
            on_files.new_version(TAG),
        ):
            with pytest.raises(Unavailable):
                await call
        assert [finding.level for finding in await on_files.self_check()] == ["error"]


async def test_a_damaged_version_is_unavailable_never_destroyed(on_files, tmp_path):
    version = await on_files.new_version(TAG)
    blob = await on_files.wrap(version, KEY, AAD)
    path = tmp_path / "keys" / version
    whole = path.read_bytes()
    for damaged in (
        whole[:-1],
        b"",
        b"XXXX" + whole[4:],
        whole[:-1] + bytes([whole[-1] ^ 1]),
        whole[:9000] + bytes([whole[9000] ^ 1]) + whole[9001:],
        whole.replace(TAG, b"T" * 64),
    ):
        path.write_bytes(damaged)
        with pytest.raises(Unavailable):
            await on_files.unwrap(version, blob, AAD)
    path.write_bytes(whole)
    assert await on_files.unwrap(version, blob, AAD) == KEY
    path.write_bytes(whole[:50])
    with pytest.raises(Unavailable):
        await on_files.versions()


async def test_create_refuses_a_directory_in_use(on_files, tmp_path):
    with pytest.raises(ConfigError):
        await on_files.create()
    assert await on_files.versions() == {}


async def test_files_are_private_and_self_check_notices_when_not(on_files, tmp_path):
    version = await on_files.new_version(TAG)
    path = tmp_path / "keys" / version
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size > MATERIAL_BYTES
    path.chmod(0o644)
    (tmp_path / "keys").chmod(0o755)
    messages = [finding.message for finding in await on_files.self_check()]
    assert any("0644 instead of 0600" in message for message in messages)
    assert any("0755 instead of 0700" in message for message in messages)


def mounted(tmp_path, kind, options="rw"):
    """Return a directory whose path has a blank, and a mount table that says what it is on."""
    directory = tmp_path / "a b" / "keys"
    directory.mkdir(parents=True)
    mounts = tmp_path / "mounts"
    point = str(tmp_path / "a b").replace(" ", "\\040")
    mounts.write_text(f"disk / xfs rw 0 0\nbroken\ndisk2 {point} {kind} {options} 0 0\n")
    return directory, mounts


def device(tmp_path, directory, *, rotational, partition):
    """Make a /sys/dev/block that has the disk, or the partition, on which `directory` lies."""
    number = directory.stat().st_dev
    disk = tmp_path / "sys" / "disk"
    (disk / "queue").mkdir(parents=True)
    (disk / "queue" / "rotational").write_text(f"{rotational:d}\n")
    (disk / "part").mkdir()
    devices = tmp_path / "devices"
    devices.mkdir()
    (devices / f"{os.major(number)}:{os.minor(number)}").symlink_to(disk / "part" if partition else disk)
    return devices


@pytest.mark.parametrize("kind", ["btrfs", "zfs", "bcachefs", "overlay", "tmpfs"])
def test_a_file_system_that_does_not_overwrite_in_place_is_named(tmp_path, kind):
    directory, mounts = mounted(tmp_path, kind)
    (found,) = filesystem_findings(directory, mounts=mounts)
    assert found.level == "warning"
    assert f"is on {kind}" in found.message
    assert found.hint


@pytest.mark.parametrize("partition", [True, False])
@pytest.mark.parametrize(
    ("rotational", "options", "says"),
    [(True, "rw", "says it rotates"), (False, "rw,discard", "on flash: "), (False, "rw", "flash without discard")],
)
def test_the_device_below_is_named(tmp_path, partition, rotational, options, says):
    directory, mounts = mounted(tmp_path, "ext4", options)
    devices = device(tmp_path, directory, rotational=rotational, partition=partition)
    (found,) = filesystem_findings(directory, mounts=mounts, devices=devices, reflinks=lambda path: False)
    assert found.level == "warning"
    assert says in found.message
    assert found.hint


def test_a_device_nobody_can_see_is_said_to_be_unknown(tmp_path):
    directory, mounts = mounted(tmp_path, "ext4")
    (found,) = filesystem_findings(directory, mounts=mounts, devices=tmp_path / "none", reflinks=lambda path: False)
    assert "cannot be known" in found.message
    (found,) = filesystem_findings(directory, mounts=tmp_path / "none", devices=tmp_path / "none")[-1:]
    assert "an unknown file system" in found.message


def test_reflinks_are_warned_of(tmp_path):
    directory, mounts = mounted(tmp_path, "xfs")
    first, _ = filesystem_findings(directory, mounts=mounts, devices=tmp_path / "none", reflinks=lambda path: True)
    assert "reflink" in first.message
    assert first.hint


@pytest.mark.parametrize("reflink", [0, 1])
def test_reflinks_are_found_by_trying(tmp_path, reflink):
    disk, point = tmp_path / "disk", tmp_path / "point"
    point.mkdir()
    disk.write_bytes(b"")
    os.truncate(disk, 320 << 20)
    try:
        run("mkfs.xfs", "-q", "-m", f"reflink={reflink}", str(disk))
        run("mount", "-o", "loop", str(disk), str(point))
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("needs mkfs.xfs (xfsprogs) and the right to mount")
    try:
        assert shares_blocks(point) == bool(reflink)
        assert list(point.iterdir()) == []
    finally:
        run("umount", str(point))


def run(*command):
    subprocess.run(command, check=True, capture_output=True)


def test_a_split_secret_needs_every_stripe():
    secret = os.urandom(64)
    material = antiforensic.split(secret, 8, os.urandom)
    assert len(material) == 8 * 64
    assert antiforensic.merge(material) == secret
    for at in range(0, len(material), 64):
        assert antiforensic.merge(material[:at] + bytes(64) + material[at + 64 :]) != secret


def test_equal_secrets_split_differently():
    assert antiforensic.split(bytes(64), 4, os.urandom) != antiforensic.split(bytes(64), 4, os.urandom)
