"""`callvault audit`: lists, exports and verifies the audit trail."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cli.arguments import instant_or_none, local_minute, zone
from cli.command import Remote, local, new_group, remote
from cli.files import STDOUT, repeated_lines, whole_file
from cli.output import Output, json_lines
from vault.certificates.audit_chain import AuditHead, AuditPart, instant, part_of, verify_chain, verify_part
from vault.errors import FormatError, Invalid
from vault.ids import TenantId
from vault.model import AuditEntry, AuditEvent

group = new_group("The audit trail, who did what and who was refused: search it, export it, verify its chain.")

_PAGE = 1000
_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAX_SEQ: Final = 10**18
_MAX_LINE_BYTES: Final = 64 << 20
_OPTIONAL: Final = ("role", "tenant", "purpose", "request_id", "target")


OfTenant = Annotated[str | None, typer.Option("--tenant", help="Only this tenant's entries.")]
OfRecording = Annotated[
    str | None,
    typer.Option(
        "--recording",
        help="Only acts on this recording itself. The acts on its holds and erasures are under their own ids.",
    ),
]
OfActor = Annotated[str | None, typer.Option("--actor", help="Only acts of this token: tok_ and 32 hex digits.")]
OfEvent = Annotated[
    str | None, typer.Option("--event", help="Only this event, such as access.play, or access for all such events.")
]
Since = Annotated[str | None, typer.Option("--from", help="At or after this: -7d, today, a date or an instant.")]
Until = Annotated[str | None, typer.Option("--to", help="Before this: now, today, a date or an instant.")]


@remote(
    group,
    "list",
    examples=[
        "callvault audit list --recording rec_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f",
        "callvault audit list --recording rec_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f --event access.play",
        "callvault audit list --actor tok_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f --from -7d",
        "callvault audit list --event access --from 2026-11-01 --to 2026-12-01 --json",
    ],
)
async def listing(
    call: Remote,
    *,
    recording: OfRecording = None,
    actor: OfActor = None,
    event: OfEvent = None,
    since: Since = None,
    until: Until = None,
    tenant: OfTenant = None,
    before: Annotated[int | None, typer.Option(min=1, help="Continue after this entry, the last of a page.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 100,
) -> None:
    """List entries, newest first; a tenant's token sees only its tenant's entries."""
    wanted = _filters(tenant=tenant, recording=recording, actor=actor, event=event, since=since, until=until)
    found: list[dict[str, Any]] = []
    while len(found) < limit:
        at_most = min(limit - len(found), _PAGE)
        page = await call.client.get("/v1/audit", **wanted, order="newest", before=before, limit=at_most)
        found += page["entries"]
        before = page["before"]
        if before is None:
            break
    if call.out.as_json:
        call.out.document({"entries": found, "before": before})
        return
    rows = [
        (
            local_minute(entry["at"]),
            entry["event"] if entry["outcome"] == "ok" else f"{entry['event']}: {entry['outcome']}",
            entry["actor"].partition(" ")[2] or entry["actor"],
            entry["purpose"] if recording else entry["target"],
        )
        for entry in found
    ]
    at = f"at ({zone(now=datetime.now(UTC))})"
    columns = [at, "event", "who", "purpose" if recording else "what"]
    call.out.table(columns, rows, empty="no entries match")
    if before is not None:
        call.out.hint(f"there may be more: add --before {before}")


def _filters(**given: str | None) -> dict[str, str]:
    """Return the filters that were given, by their API names."""
    names = {"since": "from", "until": "to"}
    read = {**given, "since": instant_or_none(given["since"]), "until": instant_or_none(given["until"])}
    return {names.get(name, name): text for name, text in read.items() if text is not None}


@remote(
    group,
    "export",
    examples=[
        "callvault audit export > audit.jsonl",
        "callvault audit export --after 10000 -o new.jsonl",
        "callvault audit export --recording rec_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f -o recording.jsonl",
    ],
)
async def export(
    call: Remote,
    *,
    output: Annotated[
        str, typer.Option("--output", "-o", help="The file to write, or - for standard output.")
    ] = STDOUT,
    after: Annotated[int, typer.Option(min=0, help="Only entries after this number.")] = 0,
    recording: OfRecording = None,
    actor: OfActor = None,
    event: OfEvent = None,
    since: Since = None,
    until: Until = None,
    tenant: OfTenant = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
) -> None:
    """Export the trail as JSON lines, oldest first; a tenant's token sees its tenant's entries.

    With a filter it is a part of the trail, and says so: nothing shows that no entry of it was left out.
    """
    wanted = _filters(tenant=tenant, recording=recording, actor=actor, event=event, since=since, until=until)
    if wanted:
        call.out.note("this is a part of the trail: it cannot show that no matching entry is missing")
    if output == STDOUT:
        async for page in _pages(call, after, wanted):
            call.out.lines(page)
        return
    count = 0
    with whole_file(Path(output), force=force) as file:
        async for page in _pages(call, after, wanted):
            file.write(json_lines(page).encode())
            count += len(page)
    written = {"file": output, "entries": count, "part": bool(wanted)}
    call.out.show(written, list(written.items()))


async def _pages(call: Remote, after: int, wanted: Mapping[str, str]) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the entries page by page, until a page moves no further."""
    while True:
        page = await call.client.get("/v1/audit", **wanted, after=after, limit=_PAGE)
        yield page["entries"]
        if page["after"] == after:
            return
        after = page["after"]


def parse_entries(lines: Iterable[bytes]) -> Iterator[AuditEntry]:
    """Yield the entries of an export; FormatError names the first line that is not an entry."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield _entry(json.loads(line.decode(), object_pairs_hook=_members))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError(f"line {number} of the export is not an audit entry") from error


def _members(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; ValueError if a name comes twice, of which another reader may take the other value."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has a member twice")
    return members


def _entry(line: Mapping[str, Any]) -> AuditEntry:
    texts = {name: line[name] for name in ("event", "actor", "outcome")}
    optional = {name: line[name] for name in _OPTIONAL}
    known = {*texts, *optional, "seq", "at", "detail", "previous_sha256", "sha256"}
    if set(line) != known or type(line["seq"]) is not int or not isinstance(line["detail"], dict):
        raise ValueError("an audit entry has exactly its own members")
    if not 0 < line["seq"] < _MAX_SEQ:
        raise ValueError("an audit entry's number is positive")
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError("an audit entry's event, actor and outcome are text")
    if not all(text is None or isinstance(text, str) for text in optional.values()):
        raise TypeError("an audit entry's other members are text or null")
    hashes = [line["previous_sha256"], line["sha256"]]
    if not all(_SHA256.fullmatch(digest) for digest in hashes):
        raise ValueError("an audit entry's hashes are SHA-256 in hex")
    tenant = optional.pop("tenant")
    at = datetime.fromisoformat(line["at"])
    if at.tzinfo is not UTC or instant(at) != line["at"]:
        raise ValueError("an audit entry's time is not written as the trail writes it")
    return AuditEntry(
        seq=line["seq"],
        at=at,
        event=AuditEvent(
            **texts, **optional, tenant=None if tenant is None else TenantId(tenant), detail=line["detail"]
        ),
        previous_sha256=hashes[0],
        sha256=hashes[1],
    )


def _expected(text: str | None, option: str) -> AuditHead | None:
    if text is None:
        return None
    match = _HEAD.fullmatch(text)
    if match is None:
        raise Invalid(f"{option} is an entry's number and hash", hint="for example 1041:9f86d081…, as verify prints it")
    return AuditHead(seq=int(match[1]), sha256=match[2])


@local(
    group,
    "verify",
    examples=["callvault audit verify audit.jsonl", "callvault audit verify audit.jsonl --expect 1041:9f86d081884c…"],
)
def verify(
    out: Output,
    file: Annotated[Path, typer.Argument(help="An export of the trail: JSON lines.", show_default=False)],
    expect: Annotated[
        str | None, typer.Option(help="A head noted earlier, NUMBER:HASH, the trail must contain.")
    ] = None,
    after: Annotated[str | None, typer.Option(help="The head the export continues, NUMBER:HASH.")] = None,
    part: Annotated[
        bool, typer.Option("--part", help="The export was filtered: between its entries are others.")
    ] = False,
) -> None:
    """Verify offline that no entry was changed, removed or reordered.

    If one was, it names the first entry that does not fit and exits with 5. Keep the head that it prints: only with
    that can a later check show that the newest entries were not cut off. In a part of the trail (one tenant's, or a
    filtered one) each entry is compared with its hash, and with the entry before it if the part has that. A part cannot
    show that no entry was left out.
    """
    start, published = _expected(after, "--after"), _expected(expect, "--expect")
    if start is not None and part:
        raise Invalid("--after and --part exclude each other: a filtered part continues no earlier export")
    with repeated_lines(file, what="the export", limit_bytes=_MAX_LINE_BYTES) as lines:
        tenant = None if start is not None else part_of(parse_entries(lines()))
        if part or tenant is not None:
            _show_part(out, verify_part(parse_entries(lines()), expected=published), tenant)
            return
        after_head = {} if start is None else {"after": start}
        head = verify_chain(parse_entries(lines()), **after_head, expected=published)
    found = {"verified": True, "entries_through": head.seq, "head": f"{head.seq}:{head.sha256}"}
    out.show(found, [("verified through entry", head.seq), ("head", found["head"])])


def _show_part(out: Output, part: AuditPart, tenant: str | None) -> None:
    whose = "a part of the trail" if tenant is None else "entries of one tenant, a part of the trail"
    found = {
        "verified": True,
        "part": True,
        "tenant": tenant,
        "entries": part.entries,
        "links": part.links,
        "head": f"{part.head.seq}:{part.head.sha256}",
    }
    pairs: list[tuple[str, object]] = [
        ("verified", whose if tenant is None else f"{whose}: {tenant}"),
        ("entries that match their hash", part.entries),
        ("directly after the one before", part.links),
        ("last entry", found["head"]),
    ]
    out.show(found, pairs)
    if not out.as_json:
        out.note("an operator's export of the whole trail shows whether any entry was left out")
