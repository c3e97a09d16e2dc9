"""The filesystem store against full disks, failing disks, crashes, lost mounts and damaged files."""

import asyncio
import contextlib
import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vault.errors import ConfigError, DiskFull, FormatError, IntegrityError, NotFound, Unavailable
from vault.ports.objects import Deletion, ObjectMeta
from vault.storage.objects.filesystem import FilesystemObjectStore
from vault.storage.objects.tree import HEADER_BYTES, MARKER, ObjectTree

NAME = "v1/acme/20500/rec_1/000000-a.seg"
DATA = b"sealed" * 1000


def meta_of(data: bytes) -> ObjectMeta:
    return ObjectMeta(
        retain_until=datetime(2099, 1, 1, tzinfo=UTC),
        retention_class="standard",
        sha256=hashlib.sha256(data).hexdigest(),
    )


def file_of(root: Path, name: str = NAME) -> Path:
    return root / "objects" / f"{name}#object"


@pytest.fixture
async def root(tmp_path):
    await FilesystemObjectStore.create(tmp_path / "objects")
    return tmp_path / "objects"


@pytest.fixture
async def store(root):
    opened = await FilesystemObjectStore.open(root)
    yield opened
    await opened.close()


class Crash(BaseException):
    """The process ends here."""


# --- failing disks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error"),
    [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EIO, Unavailable), (errno.EROFS, Unavailable)],
)
@pytest.mark.parametrize("call", ["fdatasync", "rename", "mkdir", "fsync"])
async def test_a_put_that_fails_leaves_neither_object_nor_temporary_file_in_the_way(
    store, root, monkeypatch, call, *, code, error
):
    with monkeypatch.context() as patch:

        def fail(*_, **__):
            raise OSError(code, os.strerror(code))

        patch.setattr(os, call, fail)
        with pytest.raises(error) as caught:
            await store.put(NAME, [DATA], meta=meta_of(DATA))
    assert (type(caught.value) is DiskFull) == (error is DiskFull)
    assert (caught.value.hint == "free space on that disk") == (error is DiskFull)
    assert list((root / "tmp").iterdir()) == []
    with pytest.raises(NotFound):
        await store.get(NAME)
    await store.put(NAME, [DATA], meta=meta_of(DATA))
    assert await store.get(NAME) == DATA


@pytest.mark.parametrize("method", ["get", "stat", "set_held", "delete", "list"])
async def test_an_unreadable_disk_is_unavailable_and_never_absence(store, monkeypatch, method):
    await store.put(NAME, [DATA], meta=meta_of(DATA))

    async def attempt():
        match method:
            case "list":
                return [info async for info in store.list("v1/")]
            case "set_held":
                return await store.set_held(NAME, held=True)
            case _:
                return await getattr(store, method)(NAME)

    def fail(*_, **__):
        raise OSError(errno.EIO, "I/O error")

    with monkeypatch.context() as patch:
        for call in ("open", "unlink", "pread"):
            patch.setattr(os, call, fail)
        with pytest.raises(Unavailable):
            await attempt()
    assert await store.get(NAME) == DATA


async def test_a_disk_that_stores_fewer_bytes_than_were_written_is_an_integrity_error(root, monkeypatch):
    class Lying(ObjectTree):
        def _write(self, path, header, chunks):
            super()._write(path, header, [b"".join(chunks)[:-1]])

    monkeypatch.setattr("vault.storage.objects.filesystem.ObjectTree", Lying)
    store = await FilesystemObjectStore.open(root)
    with pytest.raises(IntegrityError):
        await store.put(NAME, [DATA], meta=meta_of(DATA))
    await store.close()


# --- crashes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("landed", [False, True], ids=["lost", "landed"])
@pytest.mark.parametrize("call", ["fdatasync", "mkdir", "rename", "fsync"])
def test_a_crash_at_any_step_of_a_put_leaves_all_of_the_object_or_none(tmp_path, monkeypatch, call, landed):
    root = tmp_path / "objects"
    asyncio.run(FilesystemObjectStore.create(root))
    tree = ObjectTree(root)
    real = getattr(os, call)
    unlink = os.unlink

    def crash(*args, **kwargs):
        if landed:
            real(*args, **kwargs)
        raise Crash

    def dead(*_, **__):
        raise FileNotFoundError  # a crashed process cleans nothing up

    with monkeypatch.context() as patch:
        patch.setattr(os, call, crash)
        patch.setattr(os, "unlink", dead)
        with pytest.raises(Crash):
            tree.put(NAME, [DATA], len(DATA), meta_of(DATA))
    assert os.unlink is unlink
    tree.close()

    again = ObjectTree(root)
    assert list((root / "tmp").iterdir()) == []
    try:
        assert again.get(NAME, 0, None) == DATA
        assert again.stat(NAME).meta == meta_of(DATA)
    except NotFound:
        assert list(again.walk("")) == []
    again.put(NAME, [DATA], len(DATA), meta_of(DATA))
    assert again.get(NAME, 0, None) == DATA
    again.close()


@pytest.mark.parametrize("landed", [False, True], ids=["lost", "landed"])
@pytest.mark.parametrize("call", ["unlink", "fsync", "rmdir"])
def test_a_delete_cut_short_is_completed_by_the_next(tmp_path, monkeypatch, call, landed):
    root = tmp_path / "objects"
    asyncio.run(FilesystemObjectStore.create(root))
    tree = ObjectTree(root)
    tree.put(NAME, [DATA], len(DATA), meta_of(DATA))
    real = getattr(os, call)

    def crash(*args, **kwargs):
        if landed:
            real(*args, **kwargs)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(os, call, crash)
        with pytest.raises(Crash):
            tree.delete(NAME)
    tree.close()
    again = ObjectTree(root)
    assert again.delete(NAME).absent
    assert list((root / "objects").iterdir()) == []
    again.close()


@pytest.mark.parametrize("landed", [False, True], ids=["lost", "landed"])
@pytest.mark.parametrize("call", ["unlink", "rmdir", "fsync"])
def test_a_deletion_of_many_recordings_cut_short_is_completed_by_the_next(tmp_path, monkeypatch, call, landed):
    root = tmp_path / "objects"
    asyncio.run(FilesystemObjectStore.create(root))
    places = {f"v1/{tenant}/20500/rec_{number}/": () for tenant in ("acme", "beta") for number in range(3)}
    places["v1/beta/20500/rec_9/"] = ("v1/beta/20500/rec_9/never",)
    real = getattr(os, call)
    # Crash at each of these calls in turn, until one run has no more of them.
    for step in range(100):
        tree = ObjectTree(root)
        for place in list(places)[:-1]:
            for leaf in ("a", "b"):
                tree.put(place + leaf, [DATA], len(DATA), meta_of(DATA))
        tree.put("v1/beta/20500/rec_kept/a", [DATA], len(DATA), meta_of(DATA))
        calls = 0

        def crash(*args, step=step, **kwargs):
            nonlocal calls
            calls += 1
            if calls - 1 != step:
                return real(*args, **kwargs)
            if landed:
                real(*args, **kwargs)
            raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(os, call, crash)
            with contextlib.suppress(Crash):
                tree.delete_below(places)
        tree.close()
        again = ObjectTree(root)
        outcomes = again.delete_below(places)
        assert all(deletion.absent for found in outcomes.values() for deletion in found)
        assert [info.name for info in again.walk("v1/")] == ["v1/beta/20500/rec_kept/a"]
        assert [path.name for path in (root / "objects/v1").iterdir()] == ["beta"]
        again.close()
        if calls <= step:
            break
    assert step == {"unlink": 12, "rmdir": 10, "fsync": 2}[call]


def test_a_repeated_deletion_makes_durable_what_the_first_removed_and_did_not_synchronise(tmp_path, monkeypatch):
    root = tmp_path / "objects"
    asyncio.run(FilesystemObjectStore.create(root))
    tree = ObjectTree(root)
    synced: list[str] = []
    real = os.fsync

    def spied(handle: int) -> None:
        real(handle)
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink().relative_to(root)))

    for name in ("v1/t/20500/rec_1/a", "v1/t/20500/rec_2/a", "v1/t/20501/rec_3/a"):
        tree.put(name, [DATA], len(DATA), meta_of(DATA))
    monkeypatch.setattr(os, "fsync", spied)
    places = {"v1/t/20500/rec_1/": ()}
    tree.delete_below(places)
    assert synced == ["objects/v1/t/20500"]
    tree.delete_below(places)
    assert synced == ["objects/v1/t/20500"] * 2
    tree.delete_below({"v1/t/20500/rec_2/": ()})
    assert synced[2:] == ["objects/v1/t"]
    tree.close()


def test_a_place_that_cannot_be_emptied_says_so_and_the_others_are_deleted(tmp_path, monkeypatch):
    root = tmp_path / "objects"
    asyncio.run(FilesystemObjectStore.create(root))
    tree = ObjectTree(root)
    names = [f"v1/t/20500/rec_{number}/a" for number in range(3)]
    for name in names:
        tree.put(name, [DATA], len(DATA), meta_of(DATA))
    real = os.open

    def fails(path, *args, **kwargs):
        if str(path).endswith("rec_1"):
            raise OSError(errno.EIO, "I/O error")
        return real(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fails)
        outcomes = tree.delete_below({name[:-1]: (name,) for name in names})
    bad = outcomes.pop(names[1][:-1])
    assert isinstance(bad, Unavailable)
    assert [deletion for found in outcomes.values() for deletion in found] == [
        Deletion(name=name, versions_deleted=1, absent=True) for name in (names[0], names[2])
    ]
    assert [info.name for info in tree.walk("v1/")] == [names[1]]
    tree.close()


def test_an_object_that_arrives_while_its_place_is_deleted_is_not_called_absent(tmp_path, monkeypatch):
    root = tmp_path / "objects"
    asyncio.run(FilesystemObjectStore.create(root))
    tree = ObjectTree(root)
    tree.put(NAME, [DATA], len(DATA), meta_of(DATA))
    place, late = NAME.rpartition("/")[0] + "/", NAME.replace("000000", "000001")
    real = os.fsync

    def then_put(handle: int) -> None:
        real(handle)
        monkeypatch.setattr(os, "fsync", real)
        tree.put(late, [DATA], len(DATA), meta_of(DATA))

    monkeypatch.setattr(os, "fsync", then_put)
    assert [(each.name, each.absent) for each in tree.delete_below({place: (NAME,)})[place]] == [
        (NAME, True),
        (late, False),
    ]
    tree.close()


def test_a_store_that_lost_its_marker_during_a_deletion_proves_nothing_absent(tmp_path, monkeypatch):
    root = tmp_path / "objects"
    asyncio.run(FilesystemObjectStore.create(root))
    tree = ObjectTree(root)
    tree.put(NAME, [DATA], len(DATA), meta_of(DATA))
    place = NAME.rpartition("/")[0] + "/"
    real = os.fsync

    def then_moved(handle: int) -> None:
        real(handle)
        (root / MARKER).unlink()

    monkeypatch.setattr(os, "fsync", then_moved)
    assert isinstance(tree.delete_below({place: ()})[place], Unavailable)
    with pytest.raises(Unavailable):
        tree.delete_below({place: ()})
    tree.close()


def test_data_is_synchronised_before_its_name_and_every_new_directory_after_it(tmp_path, monkeypatch):
    root = tmp_path / "objects"
    asyncio.run(FilesystemObjectStore.create(root))
    tree = ObjectTree(root)
    events: list[str] = []

    def spy(call: str, describe):
        real = getattr(os, call)

        def spied(*args, **kwargs):
            result = real(*args, **kwargs)
            events.append(f"{call} {describe(*args)}")
            return result

        monkeypatch.setattr(os, call, spied)

    def where(handle: int) -> str:
        path = Path(f"/proc/self/fd/{handle}").readlink().relative_to(root)
        return "data" if path.parts[0] == "tmp" else str(path)

    spy("fdatasync", where)
    spy("fsync", where)
    spy("rename", lambda *_: "")
    spy("mkdir", lambda path, *_: path)
    tree.put("v1/t/rec/a", [DATA], len(DATA), meta_of(DATA))
    assert events == [
        "fdatasync data",
        "mkdir objects/v1",
        "fsync objects",
        "mkdir objects/v1/t",
        "fsync objects/v1",
        "mkdir objects/v1/t/rec",
        "fsync objects/v1/t",
        "rename ",
        "fsync objects/v1/t/rec",
    ]
    events.clear()
    tree.put("v1/t/rec/b", [DATA], len(DATA), meta_of(DATA))
    assert events == ["fdatasync data", "rename ", "fsync objects/v1/t/rec"]
    events.clear()
    tree.delete("v1/t/rec/a")
    assert events == ["fsync objects/v1/t/rec"]
    tree.delete("v1/t/rec/b")
    tree.put("v1/t/rec/b", [DATA], len(DATA), meta_of(DATA))
    assert "mkdir objects/v1/t/rec" in events  # pruned, so made and synchronised again
    tree.close()


WRITER = """
import asyncio, hashlib, sys
from datetime import UTC, datetime
from pathlib import Path
from vault.ports.objects import ObjectMeta
from vault.storage.objects.filesystem import FilesystemObjectStore

async def main():
    store = await FilesystemObjectStore.open(Path(sys.argv[1]))
    async def write(worker):
        index = 0
        while True:
            name, data = f"v1/t/1/rec_{worker}_{index // 5}/{index}", bytes([index % 256]) * 50_000
            digest = hashlib.sha256(data).hexdigest()
            meta = ObjectMeta(retain_until=datetime(2099, 1, 1, tzinfo=UTC), retention_class="s", sha256=digest)
            await store.put(name, [data], meta=meta)
            print(name, flush=True)
            index += 1
    await asyncio.gather(*(write(worker) for worker in range(4)))

asyncio.run(main())
"""


async def test_a_killed_writer_loses_no_acknowledged_object_and_leaves_no_partial_one(root):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True)
    acknowledged = [process.stdout.readline().strip() for _ in range(60)]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += [line.strip() for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    process.stdout.close()
    process.wait()

    store = await FilesystemObjectStore.open(root)
    assert list((root / "tmp").iterdir()) == []
    present = [info.name async for info in store.list("")]
    assert set(acknowledged) <= set(present)
    for name in present:
        data = await store.get(name)
        assert hashlib.sha256(data).hexdigest() == (await store.stat(name)).meta.sha256
    await store.close()


async def test_opening_removes_what_a_crash_left_but_not_what_another_process_is_writing(root):
    (root / "tmp" / "left-by-a-crash").write_bytes(b"partial")
    first = await FilesystemObjectStore.open(root)
    assert list((root / "tmp").iterdir()) == []
    (root / "tmp" / "under-way").write_bytes(b"partial")
    second = await FilesystemObjectStore.open(root)
    assert [each.name for each in (root / "tmp").iterdir()] == ["under-way"]
    await first.close()
    await second.close()


async def test_a_cancelled_put_has_landed_or_failed_when_the_cancellation_arrives(store, monkeypatch):
    reached, go_on = threading.Event(), threading.Event()
    real = os.fdatasync

    def slow(handle):
        reached.set()
        go_on.wait(10)
        real(handle)

    monkeypatch.setattr(os, "fdatasync", slow)
    task = asyncio.create_task(store.put(NAME, [DATA], meta=meta_of(DATA)))
    await asyncio.to_thread(reached.wait, 10)
    task.cancel()
    await asyncio.sleep(0.02)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await store.delete(NAME)).versions_deleted == 1
    await asyncio.sleep(0.02)
    assert [info async for info in store.list("")] == []


# --- lost mounts and damaged files ---------------------------------------------------------------------------------


async def test_a_directory_without_marker_is_refused_because_a_disk_may_be_unmounted(tmp_path):
    for root in (tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigError, match=r"objects\.path"):
            await FilesystemObjectStore.open(root)
    assert not (tmp_path / "missing").exists()


async def test_a_store_of_another_layout_is_refused(root):
    (root / MARKER).write_bytes(b"callvault objects 2\n")
    with pytest.raises(ConfigError, match="layout"):
        await FilesystemObjectStore.open(root)


async def test_creating_refuses_a_directory_with_other_files_and_leaves_a_store_alone(tmp_path, root, store):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError):
        await FilesystemObjectStore.create(tmp_path / "full")
    assert [each.name for each in (tmp_path / "full").iterdir()] == ["thesis.txt"]
    await store.put(NAME, [DATA], meta=meta_of(DATA))
    await FilesystemObjectStore.create(root)
    assert await store.get(NAME) == DATA


@pytest.mark.parametrize("instead", ["nothing", "an empty directory", "another store", "a file"])
async def test_a_store_that_was_moved_away_is_read_and_neither_written_nor_emptied_until_it_is_back(
    store, root, tmp_path, instead
):
    await store.put(NAME, [DATA], meta=meta_of(DATA))
    await store.still_there()
    away = root.rename(tmp_path / "away")
    match instead:
        case "an empty directory":
            root.mkdir()
        case "another store":
            await FilesystemObjectStore.create(root)
        case "a file":
            root.write_bytes(b"")
    before = sorted(root.rglob("*"))
    for attempt in (
        store.still_there(),
        store.put(f"{NAME}2", [DATA], meta=meta_of(DATA)),
        store.set_held(NAME, held=True),
        store.delete(NAME),
        store.delete(f"{NAME}2"),
        store.stat(f"{NAME}2"),
        store.list("").__anext__(),
    ):
        with pytest.raises(Unavailable, match=str(root)):
            await attempt
    assert [finding.level for finding in await store.check()] == ["error"]
    assert sorted(root.rglob("*")) == before
    assert root.exists() == (instead != "nothing")
    assert [each.name for each in away.rglob("*#object")] == [file_of(away).name]
    assert await store.get(NAME) == DATA
    if root.exists():
        root.rename(tmp_path / "wrong")
    away.rename(root)
    await store.still_there()
    assert (await store.stat(NAME)).meta == meta_of(DATA)
    assert (await store.delete(NAME)).absent


async def test_a_store_whose_files_vanished_under_it_is_unavailable_and_not_empty(store, root):
    await store.put(NAME, [DATA], meta=meta_of(DATA))
    file_of(root).unlink()
    (root / MARKER).unlink()
    for attempt in (store.get(NAME), store.stat(NAME), store.set_held(NAME, held=True), store.delete(NAME)):
        with pytest.raises(Unavailable):
            await attempt
    with pytest.raises(Unavailable):
        _ = [info async for info in store.list("")]
    assert [finding.level for finding in await store.check()] == ["error"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[: HEADER_BYTES - 1]),
        lambda file: file.write_bytes(b"X" + file.read_bytes()[1:]),
        lambda file: file.write_bytes(file.read_bytes()[:4] + b"\2" + file.read_bytes()[5:]),
        lambda file: file.write_bytes(file.read_bytes()[: HEADER_BYTES - 1] + b"\1" + DATA),
        lambda file: file.write_bytes(file.read_bytes().replace(b"retain-until", b"retain_until")),
    ],
    ids=["empty", "short", "magic", "held", "padding", "field"],
)
async def test_a_damaged_header_is_an_integrity_error(store, root, damage):
    await store.put(NAME, [DATA], meta=meta_of(DATA))
    damage(file_of(root))
    with pytest.raises(IntegrityError) as caught:
        await store.stat(NAME)
    assert isinstance(caught.value, FormatError) or "header" in caught.value.message


async def test_changing_the_hold_state_changes_one_byte_of_the_file(store, root):
    await store.put(NAME, [DATA], meta=meta_of(DATA))
    before = file_of(root).read_bytes()
    await store.set_held(NAME, held=True)
    after = file_of(root).read_bytes()
    assert [index for index, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]] == [4]


async def test_symbolic_links_are_not_followed(store, root, tmp_path):
    await store.put(NAME, [DATA], meta=meta_of(DATA))
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(1000))
    file_of(root).unlink()
    file_of(root).symlink_to(secret)
    with pytest.raises(Unavailable):
        await store.get(NAME)
