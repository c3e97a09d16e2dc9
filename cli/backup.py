"""`callvault backup`: make, check and restore backups of a vault's catalog and objects; they contain no keys."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.command import DEFAULT_CONFIG, ConfigPath, load_config, local, new_group
from cli.output import Output
from vault.errors import IntegrityError

if TYPE_CHECKING:
    from vault.format.backup import BackupManifest
    from vault.services.backup.place import Listed
    from vault.services.backup.rebuild import PutBack
    from vault.services.backup.reconcile import Reconciled

group = new_group("Backups of catalog and objects. They have no keys, so only the present keyring opens them.")

Destination = Annotated[
    str, typer.Argument(metavar="DEST", help="A directory, or s3://bucket/prefix.", show_default=False)
]
BackupId = Annotated[
    str | None,
    typer.Argument(metavar="[ID]", help="bak_ and 32 hex digits; by default the newest.", show_default=False),
]


def _manifest_json(manifest: BackupManifest) -> dict[str, Any]:
    return {
        "backup": manifest.backup,
        "created": manifest.created,
        "finished": manifest.finished,
        "keyring": manifest.keyring,
        "keyring_epoch": manifest.keyring_epoch,
        "schema_revision": manifest.schema_revision,
        "recordings": manifest.counts.get("recordings", 0),
        "catalog_rows": sum(manifest.counts.values()),
        "objects": manifest.pool_objects,
        "object_bytes": manifest.pool_bytes,
    }


@local(
    group,
    "create",
    examples=[
        "callvault backup create /mnt/backup/callvault",
        "callvault backup create s3://college-backup/callvault --config /etc/callvault/config.toml",
    ],
)
async def create(
    out: Output,
    destination: Destination,
    config: ConfigPath = DEFAULT_CONFIG,
    no_objects: Annotated[
        bool, typer.Option("--no-objects", help="Leave the objects out, if their store is replicated by other means.")
    ] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="Write the whole catalog again, and use nothing of earlier backups.")
    ] = False,
) -> None:
    """Make a backup; the server may run meanwhile.

    Only what the destination lacks is written: the rows of the catalog that changed since the newest backup, and new
    objects. The backup exists only after the last step.
    """
    from vault.wiring.backup import open_backups  # noqa: PLC0415 - loads storage drivers; most commands need none

    with out.watch() as watch:
        async with open_backups(load_config(config), destination, create=True) as backups:
            made = await backups.make(objects=not no_objects, whole=whole, progress=watch)
    document = {
        **_manifest_json(made.manifest),
        "catalog_bytes_written": made.written_bytes,
        "catalog_bytes_kept": made.kept_bytes,
        "objects_copied": made.copied_objects,
        "bytes_copied": made.copied_bytes,
        "shredded_meanwhile": made.gone,
    }
    out.show(document, [(name.replace("_", " "), value) for name, value in document.items()])


@local(group, "list", examples=["callvault backup list /mnt/backup/callvault", "callvault backup list DEST --json"])
async def list_backups(out: Output, destination: Destination, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """List a destination's backups, oldest first."""
    from vault.wiring.backup import open_backups  # noqa: PLC0415 - loads storage drivers; most commands need none

    async with open_backups(load_config(config), destination) as backups:
        listed = await backups.listed()
    if out.as_json:
        out.document({"backups": [_listed_json(each) for each in listed]})
        return
    rows = [_listed_row(each) for each in listed]
    out.table(["backup", "created", "recordings", "objects", "bytes", "state"], rows, empty="no backups")


def _listed_json(each: Listed) -> dict[str, Any]:
    if each.manifest is None:
        return {"backup": each.backup, "problem": each.problem}
    return _manifest_json(each.manifest)


def _listed_row(each: Listed) -> tuple[object, ...]:
    if each.manifest is None:
        return (each.backup, None, None, None, None, each.problem)
    shown = _manifest_json(each.manifest)
    return (*(shown[name] for name in ("backup", "created", "recordings", "objects", "object_bytes")), "ok")


@local(
    group,
    "verify",
    examples=[
        "callvault backup verify /mnt/backup/callvault",
        "callvault backup verify s3://college-backup/cv --quick",
    ],
)
async def verify(
    out: Output,
    destination: Destination,
    identifier: BackupId = None,
    config: ConfigPath = DEFAULT_CONFIG,
    quick: Annotated[bool, typer.Option("--quick", help="Compare the objects' sizes only; read none of them.")] = False,
) -> None:
    """Check that a backup is whole: authentic, readable, and every object it lists present with the right hash.

    If it is not, this prints the problems and exits with 5.
    """
    from vault.format.backup import check_backup  # noqa: PLC0415 - a command imports what it needs when it runs
    from vault.wiring.backup import open_backups  # noqa: PLC0415 - loads storage drivers; most commands need none

    chosen = None if identifier is None else check_backup(identifier)
    with out.watch() as watch:
        async with open_backups(load_config(config), destination) as backups:
            found = await backups.verify(chosen, quick=quick, progress=watch)
    document = {
        **_manifest_json(found.manifest),
        "parts_opened": found.parts,
        "objects_looked_at": found.objects,
        "hashed": not quick,
        "problems": list(found.problems),
    }
    pairs = [(name.replace("_", " "), value) for name, value in document.items() if name != "problems"]
    out.show(document, pairs)
    if found.problems:
        for problem in found.problems[:20] if not out.as_json else ():
            out.note(f"problem: {problem}")
        count = len(found.problems)
        raise IntegrityError(f"{found.manifest.backup} has {count} {'problem' if count == 1 else 'problems'}")


@local(
    group,
    "restore",
    examples=[
        "callvault backup restore /mnt/backup/callvault",
        "callvault backup restore s3://college-backup/cv bak_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f",
    ],
)
async def restore(
    out: Output, destination: Destination, identifier: BackupId = None, config: ConfigPath = DEFAULT_CONFIG
) -> None:
    """Restore a backup after the catalog was lost, with the present keyring and root keys.

    Recordings that were shredded since the backup stay shredded. Newer recordings are rebuilt from their objects. Holds
    stay in force. If the restore is interrupted, run it again.
    """
    from vault.format.backup import check_backup  # noqa: PLC0415 - a command imports what it needs when it runs
    from vault.wiring.backup import restore_vault  # noqa: PLC0415 - loads storage drivers; most commands need none

    chosen = None if identifier is None else check_backup(identifier)
    with out.watch() as watch:
        done = await restore_vault(load_config(config), destination, chosen, progress=watch)
    document = {
        "backup": done.manifest.backup,
        "issuer_key_put_back": done.issuer,
        "objects": None if done.objects is None else _put_back_json(done.objects),
        **done.reconciled.counts(),
    }
    _tell(out, done.reconciled, document)
    if done.objects is not None and done.objects.lost:
        for name in done.objects.lost[:20]:
            out.note(f"missing from store and backup: {name}")
        raise IntegrityError(f"{len(done.objects.lost)} objects are in neither the store nor the backup's pool")


@local(group, "reconcile", examples=["callvault backup reconcile --config /etc/callvault/config.toml"])
async def reconcile(out: Output, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Reconcile a catalog file that was replaced by hand with keyring and objects; stop the server first.

    A server does this by itself when it finds the catalog older than the keyring. Use the command after a copy of a
    catalog in use was put back, because the server may not recognise such a copy as older.
    """
    from vault.wiring.backup import reconcile_vault  # noqa: PLC0415 - loads storage drivers; most commands need none

    with out.watch() as watch:
        found = await reconcile_vault(load_config(config), progress=watch)
    _tell(out, found, found.counts())


def _tell(out: Output, found: Reconciled, document: dict[str, Any]) -> None:
    if out.as_json:
        out.document(document)
        return
    out.text(", ".join(_sentence(found)))
    _warn(out, found)


def _put_back_json(found: PutBack) -> dict[str, Any]:
    return {
        "present": found.present,
        "put_back": found.restored,
        "bytes_put_back": found.restored_bytes,
        "without_key": found.without_key,
        "lost": len(found.lost),
    }


def _sentence(found: Reconciled) -> Iterator[str]:
    """Yield the parts of the summary whose counts are not zero."""
    yield f"{found.surviving:,} restored"
    if found.rebuilt:
        yield f"{found.rebuilt:,} of them newer and rebuilt"
    for count, one, many in (
        (len(found.shredded), "shredded since and gone", "shredded since and gone"),
        (found.completed, "completed from the store", "completed from the store"),
        (found.unfinished, "unfinished rebuilt from its segments", "unfinished rebuilt from their segments"),
        (found.holds_reapplied, "hold re-applied", "holds re-applied"),
        (found.holds_too_late, "hold too late: its recordings are shredded", "holds too late: all shredded"),
        (len(found.holds_rebuilt), "hold rebuilt from its pin", "holds rebuilt from their pins"),
        (len(found.unreadable), "unreadable and kept", "unreadable and kept"),
    ):
        if count:
            yield f"{count:,} {one if count == 1 else many}"


def _warn(out: Output, found: Reconciled) -> None:
    if found.shredded:
        these = "1 recording" if len(found.shredded) == 1 else f"{len(found.shredded):,} recordings"
        out.note(f"no certificates are here for {these} shredded since the backup:")
        for recording in found.shredded[:20]:
            out.note(f"  {recording}")
    for tenant in found.tenants_rebuilt:
        out.note(f"tenant {tenant} is newer than the backup: its controller is unknown, and its tokens are lost")
    if found.locked:
        out.note(f"{found.locked:,} objects without a key are locked by their store and stay until the lock ends")
    if found.holds_rebuilt:
        out.hint("review the rebuilt holds within a week: callvault holds list")
    out.hint("tokens issued since the backup are lost, and those revoked since work again: callvault tokens list")


@local(group, "prune", examples=["callvault backup prune /mnt/backup/callvault --keep-days 90"])
async def prune(
    out: Output,
    destination: Destination,
    config: ConfigPath = DEFAULT_CONFIG,
    keep_days: Annotated[int, typer.Option(min=0, help="Backups younger than this many days stay.")] = 90,
) -> None:
    """Remove old backups, but never the newest, and then the objects that no backup lists."""
    from vault.wiring.backup import open_backups  # noqa: PLC0415 - loads storage drivers; most commands need none

    with out.watch() as watch:
        async with open_backups(load_config(config), destination) as backups:
            done = await backups.prune(keep=timedelta(days=keep_days), progress=watch)
    document = {
        "dropped": list(done.dropped),
        "kept": list(done.kept),
        "objects_removed": done.objects,
        "objects_locked": done.locked,
    }
    out.show(document, [(name.replace("_", " "), value) for name, value in document.items()])
