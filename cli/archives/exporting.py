"""`callvault export`: writes many recordings into a directory, with a table that `callvault import` reads."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import typer

from cli.archives.sending import MOST_AT_ONCE, ParallelWork, hashed, with_retries
from cli.arguments import Filters, search
from cli.client import Client, segment
from cli.command import Remote, remote
from cli.files import Fetched, Shape, check_shape, fetch, read_file, whole_file
from vault.errors import IntegrityError, NotFound, Refused, Shredded, Unauthenticated
from vault.model import RecordingState

MANIFEST: Final = "manifest.jsonl"
_TABLE_BYTES: Final = 1 << 30
_ENDINGS: Final[Mapping[str, str]] = {
    "audio/wav": "wav",
    "audio/ogg": "ogg",
    "audio/webm": "webm",
    "audio/mpeg": "mp3",
    "audio/pcmu": "ulaw",
    "audio/pcma": "alaw",
    "audio/l16": "l16",
}
_EXAMPLES: Final = (
    "callvault export /srv/leaving --purpose data-portability",
    "callvault export case-17 --from 2026-09-01 --to 2026-10-01 --purpose legal-claim",
    "callvault export requests/dsr-1 --caller +441632960001 --purpose access-request --format raw",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """How recordings are fetched, and the directory they are written to."""

    directory: Path
    purpose: str
    shape: str


@dataclass(slots=True, kw_only=True)
class _Run:
    """The progress of an export."""

    wanted: _Wanted
    found: Sequence[Mapping[str, Any]]
    there: Mapping[str, Mapping[str, Any]]
    done: list[Mapping[str, Any]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    damage: IntegrityError | None = None

    @property
    def not_tried(self) -> int:
        """Recordings that were not reached before the export ended."""
        return len(self.found) - len(self.done) - len(self.left_out)


def register(app: typer.Typer) -> None:
    """Add the command `export`."""
    remote(app, "export", examples=_EXAMPLES)(take_out)


async def take_out(
    call: Remote,
    *,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory; it is made if it does not exist.")],
    purpose: Annotated[str, typer.Option(help="The purpose; the audit trail has it for each recording.")],
    filters: Filters,
    shape: Shape = "wav",
    parallel: Annotated[int, typer.Option(min=1, max=MOST_AT_ONCE, help="How many are fetched at once.")] = 2,
) -> None:
    """Export many recordings into a directory, with their facts and hashes in manifest.jsonl.

    Each access is in the audit trail. Run it again after any interruption: a file that exists with its hash is not
    fetched again. `callvault import` reads the directory.
    """
    check_shape(shape)
    _prepare(directory)
    there = await _kept(directory)
    found, _ = await search(call.client, filters, purpose=purpose)
    run = _Run(wanted=_Wanted(directory=directory, purpose=purpose, shape=shape), found=found, there=there)
    work = ParallelWork(parallel)
    with (
        _appended(directory / MANIFEST) as manifest,
        call.out.progress("exporting", sum(each["bytes"] for each in found)) as bar,
    ):

        async def one(item: Mapping[str, Any]) -> None:
            await _export(call.client, run, item, manifest)
            bar.advance(bar.task_ids[0], item["bytes"])

        await work.run(found, one)
    _tell(call, run, work)


async def _export(client: Client, run: _Run, item: Mapping[str, Any], manifest: BinaryIO) -> None:
    """Fetch one recording, unless its file exists; the file is complete before the table names it."""
    recording = item["id"]
    if recording in run.there:
        run.done.append(run.there[recording])
        return
    gone = _missing(item)
    if gone is not None:
        run.left_out[recording] = gone
        return
    try:
        line = await _fetched(client, run.wanted, recording)
    except Unauthenticated:
        raise
    except (NotFound, Shredded):
        run.left_out[recording] = "shredded"
    except Refused as error:
        run.left_out[recording] = error.message
    except IntegrityError as error:
        run.left_out[recording] = error.message
        run.damage = run.damage or error
    else:
        run.done.append(line)
        manifest.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        manifest.flush()


async def _fetched(client: Client, wanted: _Wanted, recording: str) -> Mapping[str, Any]:
    """Write a recording's file and return its line in the table."""
    shown = await with_retries(partial(client.get, f"/v1/recordings/{segment(recording)}"))
    said = shown.get("call", {})
    folder = wanted.directory / shown["started_at"][: len("2026-11-30")]
    folder.mkdir(mode=0o700, exist_ok=True)
    partial_name = folder / recording

    async def write() -> Fetched:
        with whole_file(partial_name, force=True) as file:
            return await fetch(client, recording, file, purpose=wanted.purpose, shape=wanted.shape)

    fetched = await with_retries(write)
    path = partial_name.with_name(f"{recording}.{_ENDINGS.get(fetched.media_type.lower(), 'bin')}")
    partial_name.replace(path)
    return {
        "file": path.relative_to(wanted.directory).as_posix(),
        "recording_id": recording,
        "call_key": said.get("call_key"),
        "from": said.get("caller_sent") or said.get("caller"),
        "to": said.get("called_sent") or said.get("called"),
        "direction": said.get("direction"),
        "started": shown["started_at"],
        "tags": said.get("tags", []),
        "sha256": fetched.sha256,
        "bytes": fetched.size,
        "media_type": fetched.content_type,
        "state": fetched.state,
    }


def _missing(item: Mapping[str, Any]) -> str | None:
    """Return why a recording cannot be fetched; None if it can."""
    if item["live"] or item["state"] == RecordingState.OPEN.value:
        return "still being recorded"
    if item["state"] in {RecordingState.SHREDDING.value, RecordingState.SHREDDED.value}:
        return "shredded"
    return None if item["bytes"] else "empty"


def _prepare(directory: Path) -> None:
    """Make the directory, readable by its owner only; Refused if it has other files.

    The unfinished files of a killed export are removed.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        strange = not (directory / MANIFEST).exists() and any(directory.iterdir())
        for left in directory.glob("*/.rec_*.partial"):
            left.unlink()
    except OSError as error:
        raise Refused(f"{directory} cannot be made: {error.strerror}") from error
    if strange:
        raise Refused(f"{directory} has other files in it; nothing was written", hint="name a directory of its own")


async def _kept(directory: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return the lines of an earlier export whose files have their hashes, and remove the other lines.

    A crash can leave half a line, and a file that no line names: that file is fetched again and replaced.
    """
    manifest = directory / MANIFEST
    if not manifest.exists():
        return {}
    kept: dict[str, Mapping[str, Any]] = {}
    for line in read_file(manifest, what="the table", limit_bytes=_TABLE_BYTES).splitlines():
        try:
            said = json.loads(line)
            if await hashed(directory / said["file"]) == said["sha256"]:
                kept[said["recording_id"]] = said
        except (ValueError, TypeError, KeyError, OSError):
            continue
    with whole_file(manifest, force=True) as file:
        for said in kept.values():
            file.write(json.dumps(said, ensure_ascii=False).encode() + b"\n")
    return kept


@contextmanager
def _appended(path: Path) -> Iterator[BinaryIO]:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _tell(call: Remote, run: _Run, work: ParallelWork) -> None:
    """Print the result; an export that left recordings out or ended early is an error."""
    document = {
        "directory": str(run.wanted.directory),
        "recordings": len(run.found),
        "exported": len(run.done) - sum(each["recording_id"] in run.there for each in run.done),
        "already_there": sum(each["recording_id"] in run.there for each in run.done),
        "left_out": run.left_out,
        "not_tried": run.not_tried,
        "bytes": sum(each["bytes"] for each in run.done),
        "manifest": str(run.wanted.directory / MANIFEST),
    }
    reasons = Counter(run.left_out.values())
    pairs = [(name.replace("_", " "), value) for name, value in document.items() if name != "left_out" and value]
    call.out.show(document, [*pairs, *((f"left out: {why}", count) for why, count in reasons.items())])
    work.finish(call.out, run.not_tried)
    if run.damage is not None:
        raise run.damage
    if run.left_out:
        raise Refused(
            f"{len(run.left_out)} of {len(run.found)} recordings are left out",
            hint="--json names them, and a later run fetches those that were still being recorded",
        )
