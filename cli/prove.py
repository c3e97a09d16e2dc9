"""`callvault prove`: attacks the vault's own promises, with all that a thief could have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.backup import BackupId, Destination
from cli.command import DEFAULT_CONFIG, ConfigPath, load_config, local, new_group
from cli.output import Output
from vault.errors import FormatError, IntegrityError, Invalid
from vault.format.names import check_recording
from vault.ids import RecordingId

if TYPE_CHECKING:
    from vault.wiring.proof import Attacked, ErasureProof, RestoreProof

group = new_group("Attack the vault's own promises: what was shredded must not open, what survives must.")

_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB)?", re.ASCII)
_UNITS: Final[Mapping[str, int]] = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_EVERYTHING: Final = 1 << 62
_DEFAULT_WINDOWS: Final = "256KiB"


def _window_bytes(text: str) -> int:
    if text == "all":
        return _EVERYTHING
    match = _SIZE.fullmatch(text)
    if match is None:
        raise Invalid("--windows is not a size", hint="write 0, 512KiB, 8MiB and the like, or the word all")
    return int(match[1]) * _UNITS[match[2] or ""]


@local(
    group,
    "erasure",
    examples=[
        "callvault prove erasure /mnt/evidence/monday /mnt/evidence/friday",
        "callvault prove erasure copies --windows all",
        "callvault prove erasure copies --recording rec_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f --json",
    ],
)
async def erasure(
    out: Output,
    artefacts: Annotated[
        list[Path],
        typer.Argument(help="Directories with copies of files that the vault ever wrote.", show_default=False),
    ],
    config: ConfigPath = DEFAULT_CONFIG,
    recording: Annotated[str | None, typer.Option(help="Attack only this one, rec_ and 32 hex digits.")] = None,
    windows: Annotated[
        str, typer.Option(help="How many bytes to try as keys, every 32-byte window: a size, or all. The slow part.")
    ] = _DEFAULT_WINDOWS,
) -> None:
    """Try to open every recording found in the artefacts.

    It tries the present keyring, every keyring found in the artefacts under every live root key, and every 32-byte
    window of the artefacts as a key. It exits with 5 if a shredded recording opens or a surviving one does not. It
    writes no files.
    """
    from vault.wiring.proof import prove_erasure  # noqa: PLC0415 - loads storage drivers; most commands need none

    chosen = None if recording is None else _recording(recording)
    with out.watch() as watch:
        proof = await prove_erasure(
            load_config(config), artefacts, recording=chosen, window_bytes=_window_bytes(windows), progress=watch
        )
    if out.as_json:
        out.document(_erasure_json(proof))
    else:
        _print_erasure(out, proof)
    if proof.alarms:
        raise IntegrityError(f"{len(proof.alarms)} of {len(proof.recordings)} recordings fail the proof")


def _recording(text: str) -> RecordingId:
    try:
        return check_recording(text)
    except FormatError as error:
        raise Invalid(f"{text[:80]!r} is not a recording id", hint=error.message) from error


def _erasure_json(proof: ErasureProof) -> dict[str, Any]:
    return {
        "files": proof.found.files,
        "bytes": proof.found.size,
        "backup_parts_opened": proof.found.opened_parts,
        "copies_of_root_keys": [str(path) for path in proof.found.root_keys],
        "old_keyrings": {
            "heads": proof.old.heads,
            "secrets_unwrapped": proof.old.opened_secrets,
            "indexes_opened": proof.old.opened_indexes,
            "pages_opened": proof.old.opened_pages,
            "attempts": proof.old.attempts,
        },
        "windows": {
            "recordings": proof.windows.targets,
            "covered_bytes": proof.windows.covered_bytes,
            "total_bytes": proof.windows.total_bytes,
        },
        "recordings": [_attacked_json(each) for each in proof.recordings],
        "alarms": len(proof.alarms),
    }


def _attacked_json(each: Attacked) -> dict[str, Any]:
    return {
        "id": each.recording,
        "state": each.state,
        "certificates": list(each.certificates),
        "opens_with_todays_keyring": each.live,
        "opens_with_an_old_keyring": each.old,
        "keys_in_clear": [
            {"artefact": strike.origin, "offset": strike.offset, "kind": strike.kind} for strike in each.strikes
        ],
        "alarm": each.alarm or None,
    }


def _print_erasure(out: Output, proof: ErasureProof) -> None:
    tried, old = proof.windows, proof.old
    opened = f"{old.opened_indexes:,} indexes, {old.opened_pages:,} pages"
    out.fields(
        [
            ("searched", f"{proof.found.files:,} files, {proof.found.size:,} bytes"),
            ("opened with today's backup key", f"{proof.found.opened_parts:,} parts of backups"),
            (
                "old keyrings",
                f"{old.heads:,} heads, {old.attempts:,} attempts; opened {old.opened_secrets:,} secrets, {opened}",
            ),
            (
                "windows",
                f"{tried.covered_bytes:,} of {tried.total_bytes:,} tried as keys of {tried.targets:,} recordings",
            ),
        ]
    )
    rows = [
        (
            each.recording,
            each.state or "unknown",
            ", ".join(each.certificates),
            "opens" if each.live else "opens nothing",
            "opens" if each.old else "opens nothing",
            f"{len(each.strikes)} keys" if each.strikes else "opens nothing",
            each.alarm or "ok",
        )
        for each in proof.recordings
    ]
    columns = ["recording", "catalog says", "certificates", "today's keyring", "old keyrings", "windows", "verdict"]
    out.table(columns, rows, empty="no sealed objects in the artefacts")
    for path in proof.found.root_keys:
        out.note(f"warning: {path} is a copy of root keys; it opens the recordings that lived in its epoch")
    if tried.covered_bytes < tried.total_bytes:
        out.hint("more windows take longer and prove more: --windows 8MiB, or all")


@local(
    group,
    "restore",
    examples=["callvault prove restore /mnt/backup/callvault", "callvault prove restore s3://college-backup/cv --json"],
)
async def restore(
    out: Output, destination: Destination, identifier: BackupId = None, config: ConfigPath = DEFAULT_CONFIG
) -> None:
    """Restore a backup's catalog to a temporary place, and read every surviving recording from the backup completely.

    The vault is neither changed nor stopped. It exits with 5 if a surviving recording does not read as recorded, or if
    a shredded one does.
    """
    from vault.format.backup import check_backup  # noqa: PLC0415 - a command imports what it needs when it runs
    from vault.wiring.proof import prove_restore  # noqa: PLC0415 - loads storage drivers; most commands need none

    chosen = None if identifier is None else check_backup(identifier)
    with out.watch() as watch:
        proof = await prove_restore(load_config(config), destination, chosen, progress=watch)
    document = _restore_json(proof)
    out.show(document, [(name.replace("_", " "), value) for name, value in document.items() if name != "problems"])
    if proof.problems:
        _say(out, proof.problems)
        raise IntegrityError(f"{len(proof.problems)} recordings of {proof.manifest.backup} are not as promised")


def _restore_json(proof: RestoreProof) -> dict[str, Any]:
    return {
        "backup": proof.manifest.backup,
        "created": proof.manifest.created,
        "readable": proof.readable,
        "bytes_read": proof.readable_bytes,
        "unfinished": proof.unfinished,
        "shredded_and_gone": proof.gone,
        "of_them_certified_in_the_backup": proof.certified,
        "problems": proof.problems,
    }


def _say(out: Output, problems: Sequence[str]) -> None:
    for problem in problems[:20] if not out.as_json else ():
        out.note(f"problem: {problem}")
