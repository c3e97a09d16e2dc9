"""`callvault recordings`: find, explain, play, flag and export recordings; pause live calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.arguments import Filters, length, local_minute, search, zone
from cli.client import segment
from cli.command import Remote, new_group, remote
from cli.files import CHUNK_BYTES, STDOUT, Shape, check_shape, destination, fetch, whole_file
from vault.errors import Invalid, NotFound, Refused
from vault.instants import rfc3339
from vault.media.sizes import in_mib
from vault.protocol.webhook import FlagCategory

group = new_group("Find, explain, play and export recordings; pause live ones.")

RecordingName = Annotated[
    str, typer.Argument(metavar="RECORDING", help="rec_ and 32 hex digits; to read, a unique beginning is enough.")
]
Purpose = Annotated[str, typer.Option(help="Why you listen, such as complaint; the audit trail has it.")]
Target = Annotated[str, typer.Option("--output", "-o", help="The file to write, or - for standard output.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")]

_ID = "rec_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f"


@remote(
    group,
    "list",
    examples=[
        "callvault recordings list --from today",
        "callvault recordings list --state live",
        "callvault recordings list --state sealed --from 2026-09-01 --to 2026-10-01 --longer-than 10m",
        "callvault recordings list --expires-to +7d --not-held",
        "callvault recordings list --call-key 5f3c@pbx.example.com --purpose complaint",
        "callvault recordings list --caller +441632960001 --purpose access-request",
        "callvault recordings list --agent 201@pbx.example.com --direction inbound --from -7d --purpose quality",
        "callvault recordings list --held --json",
    ],
)
async def listing(
    call: Remote,
    *,
    filters: Filters,
    purpose: Annotated[str | None, typer.Option(help="The purpose of a search by call key, number or tag.")] = None,
    before: Annotated[str | None, typer.Option(help="Continue after this recording, the last one of a page.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 100,
) -> None:
    """List recordings, newest first, without their parties. Times are shown and read in this machine's time zone."""
    found, after = await search(call.client, filters, purpose=purpose, before=before, limit=limit)
    if call.out.as_json:
        call.out.document({"recordings": found, "before": after})
        return
    _print(call, found, goes=filters.by_expiry)
    if after is not None:
        call.out.hint(f"there may be more: add --before {after}")


def _print(call: Remote, found: Sequence[Mapping[str, Any]], *, goes: bool) -> None:
    """Print a list; in 80 columns an id leaves room for three or four more columns."""
    here = zone(now=datetime.now(UTC))
    several = len({item["tenant"] for item in found}) > 1
    measures, whose = ["length", "MiB"], ["tenant"]
    dates = [f"started ({here})", f"retain until ({here})"]
    first, last = dates[::-1] if goes else dates
    columns = ["recording", "state", first, *(whose + measures if several else measures + whose), last]
    rows = [
        {
            "recording": item["id"],
            "state": "live" if item["live"] else item["state"],
            dates[0]: local_minute(item["started_at"]),
            dates[1]: local_minute(item["retain_until"]),
            "length": length(item["duration_ms"]),
            "MiB": in_mib(item["bytes"]),
            "tenant": item["tenant"],
        }
        for item in found
    ]
    call.out.table(columns, [[row[column] for column in columns] for row in rows], empty="no recordings match")


def _fields(found: Mapping[str, Any]) -> list[tuple[str, object]]:
    media = found["media"]
    pairs: list[tuple[str, object]] = [
        ("recording", found["id"]),
        ("tenant", found["tenant"]),
        ("state", found["state"]),
        ("reason", found["state_reason"]),
        ("live", found["live"]),
        ("size", f"{in_mib(found['bytes'])} MiB ({found['bytes']:,} bytes)"),
        ("media", _media(media)),
        ("content", media.get("content")),
        ("started", found["started_at"]),
        ("ended", found["ended_at"]),
        ("length", None if found["duration_ms"] is None else length(found["duration_ms"])),
        ("whole since", found["finished_at"]),
        ("retain until", found["retain_until"]),
        ("retention class", found["retention_class"]),
        ("certificate", found["certificate_id"]),
        ("metadata certificate", found["metadata_certificate_id"]),
    ]
    pairs += [(name.replace("_", " "), value) for name, value in found.get("call", {}).items()]
    pairs += [("hold", f"{item['id']} ({item['kind']}, {item['state']})") for item in found.get("holds", [])]
    return [(name, value) for name, value in pairs if value not in (None, [])]


def _media(media: Mapping[str, Any]) -> str:
    """Return a recording's format, without unknown parts."""
    kind = media["container"] if media["codec"] == "stream" else f"{media['container']} {media['codec']}"
    if not media["rate"]:
        return str(kind)
    return f"{kind} {media['rate']} Hz, {media['channels']} {'channel' if media['channels'] == 1 else 'channels'}"


@remote(group, "show", examples=[f"callvault recordings show {_ID}"])
async def show(call: Remote, recording: RecordingName) -> None:
    """Show one recording, with its parties if your role may see them."""
    found = await call.client.get(f"/v1/recordings/{segment(recording)}")
    call.out.show(found, _fields(found))


@remote(group, "why", examples=[f"callvault recordings why {_ID}"])
async def why(call: Remote, recording: RecordingName) -> None:
    """Explain, rule by rule, why a recording is kept or gone."""
    found = await call.client.get(f"/v1/recordings/{segment(recording)}/why")
    if call.out.as_json:
        call.out.document(found)
        return
    call.out.fields([("recording", found["id"]), ("state", found["state"]), ("key exists", found["key_exists"])])
    rows = [(line["rule"], line["effect"], line["text"]) for line in found["rules"] if line["applies"]]
    call.out.table(["rule", "effect", "because"], rows, empty="no rule applies", sentence=True)


@remote(
    group,
    "flag",
    examples=[
        f"callvault recordings flag {_ID} --category distress",
        f'callvault recordings flag {_ID} --category abuse --matter SG-2026-014 --reason "disclosed to the assistant"',
    ],
)
async def flag(
    call: Remote,
    *,
    recording: RecordingName,
    category: Annotated[FlagCategory, typer.Option(help="The kind of concern; the alert says no more than this.")],
    matter: Annotated[str | None, typer.Option(help="The case; the recording's own if left out.")] = None,
    reason: Annotated[str | None, typer.Option(help="What happened; stored with the hold, in no alert.")] = None,
) -> None:
    """Flag a safeguarding concern, also during the call: the recording is kept at once, and the lead is told."""
    body = {"category": category.value, "matter": matter, "reason": reason}
    chosen = {name: value for name, value in body.items() if value is not None}
    flagged = await call.client.post(f"/v1/recordings/{segment(recording)}/flag", chosen)
    call.out.show(flagged, [(name.removesuffix("_id").replace("_", " "), value) for name, value in flagged.items()])
    if flagged["alert"] == "none_configured":
        call.out.note("warning: no alert is sent, because the tenant has no safeguarding webhook")
        call.out.hint("an operator sets it: callvault tenants set TENANT --safeguarding-webhook URL")


async def _download(
    call: Remote, recording: str, target: str, *, purpose: str, shape: str, force: bool
) -> dict[str, Any]:
    """Write a recording's audio to `target` and return the result; an answer that breaks off leaves no file."""
    check_shape(shape)
    if target == STDOUT and call.out.as_json:
        raise Invalid("audio and JSON cannot share standard output", hint="pass -o FILE")
    # The file is opened first, so that a name that cannot be written causes no access.
    with destination(target, force=force) as file, call.out.progress(recording, None) as bar:
        task = bar.task_ids[0]
        fetched = await fetch(
            call.client,
            recording,
            file,
            purpose=purpose,
            shape=shape,
            begun=lambda total: bar.update(task, total=total),
            moved=lambda count: bar.advance(task, count),
        )
    return {
        "id": recording,
        "recording_id": recording,
        "file": target,
        "bytes": fetched.size,
        "sha256": fetched.sha256,
        "media_type": fetched.media_type,
        "state": fetched.state,
    }


def _report(call: Remote, written: Mapping[str, Any]) -> None:
    if call.out.as_json:
        call.out.document(written)
    elif written["file"] != STDOUT:
        call.out.fields(list(written.items()))


@remote(
    group,
    "play",
    examples=[
        f"callvault recordings play {_ID} --purpose complaint -o call.wav",
        f"callvault recordings play {_ID} --purpose complaint -o - | aplay",
        "callvault recordings play --call-key 5f3c@pbx.example.com --purpose complaint -o call.wav",
    ],
)
async def play(
    call: Remote,
    *,
    recording: Annotated[
        str | None, typer.Argument(metavar="[RECORDING]", help="rec_ and 32 hex digits.", show_default=False)
    ] = None,
    call_key: Annotated[str | None, typer.Option(help="The recorder's name for the call, instead of the id.")] = None,
    purpose: Purpose,
    output: Target = STDOUT,
    shape: Shape = "wav",
    force: Force = False,
) -> None:
    """Listen to a recording, even while the call is running: every byte is verified before it is sent."""
    if (recording is None) == (call_key is None):
        raise Invalid("name one recording to play, by its id or by --call-key")
    chosen = recording or await _of_call(call, str(call_key), purpose=purpose)
    _report(call, await _download(call, chosen, output, purpose=purpose, shape=shape, force=force))


async def _of_call(call: Remote, call_key: str, *, purpose: str) -> str:
    """Return the only recording of a call key; Refused if there are several."""
    body = {"call_key": call_key, "limit": 2}
    page = await call.client.call("POST", "/v1/recordings/search", body=body, headers={"Purpose": purpose})
    match page["recordings"]:
        case [only]:
            return str(only["id"])
        case []:
            raise NotFound("no recording of this call key, or not for this token", hint="callvault recordings list")
    raise Refused(
        "several recordings have this call key; none was played",
        hint="callvault recordings list --call-key, with the same purpose, has their ids",
    )


@remote(
    group,
    "export",
    examples=[
        f"callvault recordings export {_ID} --purpose access-request -o call.wav",
        f"callvault recordings export {_ID} --purpose access-request -o - --facts call.json > call.wav",
    ],
)
async def export(
    call: Remote,
    *,
    recording: RecordingName,
    purpose: Purpose,
    output: Target,
    facts: Annotated[Path | None, typer.Option(help="The file for the facts; beside the audio if left out.")] = None,
    shape: Shape = "wav",
    force: Force = False,
) -> None:
    """Write a recording, and beside it a JSON file with its facts and why it was kept.

    `callvault export` writes many at once.
    """
    beside = facts if facts is not None or output == STDOUT else Path(f"{output}.json")
    if beside is not None and beside.exists() and not force:
        raise Refused(f"{beside} exists; nothing was written", hint="choose another name, or pass --force")
    written = await _download(call, recording, output, purpose=purpose, shape=shape, force=force)
    if beside is not None:
        document = {
            "recording": await call.client.get(f"/v1/recordings/{segment(recording)}"),
            "why": await call.client.get(f"/v1/recordings/{segment(recording)}/why"),
            "audio": written,
            "purpose": purpose,
            "exported_at": rfc3339(datetime.now(UTC)),
        }
        with whole_file(beside, force=force) as file:
            file.write(json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n")
        written["facts"] = str(beside)
    _report(call, written)


async def _turn(call: Remote, recording: str, verb: str) -> None:
    turned = await call.client.post(f"/v1/recordings/{segment(recording)}/{verb}", {})
    call.out.show(turned, [(name.replace("_", " "), value) for name, value in turned.items() if value is not None])


@remote(group, "pause", examples=[f"callvault recordings pause {_ID}", f"callvault recordings pause {_ID} --json"])
async def pause(call: Remote, recording: RecordingName) -> None:
    """Pause a live call, for example while card data is spoken: its audio is dropped before it is sealed.

    The vault ends the pause, with an alarm, after ingest.pause_max (15m).
    """
    await _turn(call, recording, "pause")
    call.out.hint(f"callvault recordings resume {recording}")


@remote(group, "resume", examples=[f"callvault recordings resume {_ID}", f"callvault recordings resume {_ID} --json"])
async def resume(call: Remote, recording: RecordingName) -> None:
    """Resume a live call: its audio is kept again."""
    await _turn(call, recording, "resume")


@remote(
    group,
    "notes",
    examples=[
        f"callvault recordings notes {_ID} --purpose complaint",
        f"callvault recordings notes {_ID} --purpose complaint --document 0 -o metadata.xml",
        f"callvault recordings notes {_ID} --purpose legal-claim --aside 0 -o part.bin",
    ],
)
async def notes(
    call: Remote,
    *,
    recording: RecordingName,
    purpose: Purpose,
    number: Annotated[int | None, typer.Option("--document", min=0, help="Fetch this document instead.")] = None,
    aside: Annotated[int | None, typer.Option("--aside", min=0, help="Fetch this part kept aside instead.")] = None,
    output: Target = STDOUT,
    force: Force = False,
) -> None:
    """Tell what happened beside the audio: pauses and gaps, pressed keys, documents, parts kept aside."""
    path, headers = f"/v1/recordings/{segment(recording)}", {"Purpose": purpose}
    if number is not None and aside is not None:
        raise Invalid("one thing at a time: --document or --aside")
    if number is None and aside is None:
        found = await call.client.call("GET", f"{path}/notes", headers=headers)
        if call.out.as_json:
            call.out.document(found)
        else:
            columns = ["what", "at byte", "at", "more"]
            call.out.table(columns, _noted(found), empty="nothing was noted beside the audio", sentence=True)
        return
    if output == STDOUT and call.out.as_json:
        raise Invalid("the document and JSON cannot share standard output", hint="pass -o FILE")
    size = 0
    fetched = f"{path}/aside/{aside}" if number is None else f"{path}/documents/{number}"
    with destination(output, force=force) as file:
        async with call.client.request("GET", fetched, headers=headers) as response:
            async for piece in response.content.iter_chunked(CHUNK_BYTES):
                file.write(piece)
                size += len(piece)
            media_type = response.content_type
    _report(call, {"id": recording, "recording_id": recording, "file": output, "bytes": size, "media_type": media_type})


def _noted(found: Mapping[str, Any]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        (item["reason"], item["offset"], item["at"], f"{item['missing_ms']} ms, {item['dropped_bytes']} bytes dropped")
        for item in found["gaps"]
    ]
    rows += [(f"key {item['digit']}", item["offset"], item["at"], "") for item in found["dtmf"]]
    rows += [
        (f"document {item['number']}", item["offset"], item["at"], f"{item['media_type']}, {item['bytes']} bytes")
        for item in found["documents"]
    ]
    rows += [
        (f"aside {item['number']}", "", "", f"part {item['part']}, {item['bytes']} bytes") for item in found["aside"]
    ]
    return sorted(rows, key=lambda row: str(row[2]))
