"""The one way in which files are written, locked and refused, against disks that fail at any step."""

import errno
import os
from pathlib import Path

import pytest

from vault.disk import answering, lock_file, make_directories, share_lock, try_lock, write_new, write_whole
from vault.errors import DiskFull, Unavailable

CALLS = ("posix_fallocate", "fsync", "rename", "sync_directory")


class Crash(BaseException):
    """The process ends here."""


def failing(patch, call, error, *, landed=False):
    owner, name = (Path, "rename") if call == "rename" else (os, "fsync" if call == "sync_directory" else call)
    real = getattr(owner, name)

    def fail(*args):
        # The directory is synchronised last, through the same call as the file.
        if call in {"fsync", "sync_directory"} and (call == "fsync") == Path(f"/proc/self/fd/{args[0]}").is_dir():
            return real(*args)
        if landed:
            real(*args)
        raise error

    patch.setattr(owner, name, fail)


@pytest.mark.parametrize("landed", [False, True])
@pytest.mark.parametrize("kind", [OSError, Crash])
@pytest.mark.parametrize("call", CALLS)
def test_a_file_cut_short_is_all_of_the_old_or_all_of_the_new(tmp_path, monkeypatch, call, kind, landed):
    path = tmp_path / "key"
    write_whole(path, b"old")
    with monkeypatch.context() as patch:
        failing(patch, call, kind(errno.EIO, "I/O error"), landed=landed)
        with pytest.raises(kind):
            write_whole(path, b"newer")
    renamed = call == "sync_directory" or (call == "rename" and landed)
    assert path.read_bytes() == (b"newer" if renamed else b"old")
    assert [each.name for each in tmp_path.iterdir()] == ["key"]


def test_a_file_takes_its_name_only_after_its_content_is_durable_and_keeps_it_only_then(tmp_path, monkeypatch):
    steps = []
    fsync, rename = os.fsync, Path.rename

    def synced(handle):
        steps.append("name" if Path(f"/proc/self/fd/{handle}").is_dir() else "content")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", lambda one, other: (steps.append("rename"), rename(one, other))[1])
    write_whole(tmp_path / "key", b"bytes")
    assert steps == ["content", "rename", "name"]


def test_what_is_written_is_its_owners_alone_and_overwrites_nothing_that_is_to_be_new(tmp_path):
    before = os.umask(0)
    try:
        write_whole(tmp_path / "whole", b"1")
        write_new(tmp_path / "new", [b"1", b"2"])
        os.close(lock_file(tmp_path / "lock"))
        make_directories(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    assert modes == {"whole": 0o600, "new": 0o600, "lock": 0o600, "a": 0o700}
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "new", [b"3"])
    assert (tmp_path / "new").read_bytes() == b"12"


def test_what_is_in_the_place_of_an_unfinished_file_gets_none_of_it(tmp_path):
    place, path, elsewhere = tmp_path / ".key.new", tmp_path / "key", tmp_path / "elsewhere"
    for put in (place.symlink_to, place.hardlink_to, lambda there: there.rename(place)):
        elsewhere.write_bytes(b"theirs")
        elsewhere.chmod(0o666)
        with elsewhere.open("rb") as theirs:
            put(elsewhere)
            write_whole(path, b"secret")
            assert theirs.read() == b"theirs"
        assert (path.read_bytes(), path.is_symlink(), path.stat().st_mode & 0o777) == (b"secret", False, 0o600)
        assert not place.exists()


def test_a_lock_excludes_every_other_handle_also_of_this_process_and_a_shared_one_only_those_alone(tmp_path):
    path = tmp_path / "lock"
    with pytest.raises(FileNotFoundError):
        lock_file(path, makes=False)
    held = lock_file(path)
    assert lock_file(path) is None
    other = os.open(path, os.O_RDWR)
    assert not try_lock(other)
    assert not try_lock(other, shared=True)
    os.close(held)
    assert try_lock(other)
    share_lock(other)
    third = os.open(path, os.O_RDWR)
    assert try_lock(third, shared=True)
    assert not try_lock(third)
    os.close(other)
    assert try_lock(third)
    os.close(third)


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (errno.ENOSPC, DiskFull, "full"),
        (errno.EDQUOT, DiskFull, "full"),
        (errno.EIO, Unavailable, "failed: Input/output error"),
        (errno.ENOENT, Unavailable, "failed: No such file or directory"),
    ],
)
def test_a_disk_without_room_is_told_from_one_that_fails_and_neither_from_absence(code, kind, said):
    with pytest.raises(kind) as caught, answering(full="full", failed="failed", cause="disk"):
        raise OSError(code, "/secret/place is not told")
    assert caught.value.hint == ("free space on that disk" if kind is DiskFull else None)
    assert (type(caught.value), caught.value.message, caught.value.facts) == (kind, said, {"cause": "disk"})
    if code == errno.ENOENT:
        with pytest.raises(FileNotFoundError), answering(full="full", failed="failed", absence=True):
            raise OSError(code, "absent")
