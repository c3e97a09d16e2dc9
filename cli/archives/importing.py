"""`callvault import`: sends an existing archive of recordings, with the facts of each, to a server."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cli.archives.plan import (
    REPORT_PREFIX,
    Item,
    LeftOut,
    Plan,
    Reader,
    RetentionPreview,
    Terms,
    Why,
    alike,
    by_key,
    is_due,
    is_report,
    retention_preview,
    terms_of,
    words,
)
from cli.archives.sending import MOST_AT_ONCE, Done, Outcome, ParallelWork, Sender, hashed
from cli.archives.tables import Dates, zone_of
from cli.client import segment
from cli.command import Remote, remote
from cli.files import whole_file
from vault.errors import Invalid, Refused
from vault.instants import rfc3339

_SHEET: Final = (
    "callvault import calls.csv --tenant northfield-college --time-zone Europe/London --mapping from=ANI "
    "--mapping started=Date+Time --date-format '%d/%m/%Y %H:%M:%S'"
)
_EXAMPLES: Final = (
    "callvault import /srv/archive --tenant northfield-college --dry-run",
    "callvault import /srv/archive --tenant northfield-college --report import.jsonl",
    _SHEET,
)


@dataclass(slots=True, kw_only=True)
class _Run:
    """The progress of an import."""

    source: Path
    tenant: str
    dry_run: bool
    terms: Terms
    began: datetime
    plan: Plan
    preview: RetentionPreview
    left_out: list[LeftOut]
    done: list[Done] = field(default_factory=list)

    @property
    def files(self) -> int:
        """The number of files and rows in the archive."""
        return len(self.plan.items) + len(self.plan.left_out)

    @property
    def not_tried(self) -> int:
        """Files that were not reached before the import ended."""
        return self.files - len(self.done) - len(self.left_out)


def register(app: typer.Typer) -> None:
    """Add the command `import`."""
    remote(app, "import", examples=_EXAMPLES)(bring_in)


async def bring_in(
    call: Remote,
    *,
    source: Annotated[
        Path,
        typer.Argument(metavar="DIR|TABLE", help="A directory, or the table (CSV, JSON, JSON Lines) beside its files."),
    ],
    tenant: Annotated[str, typer.Option(help="The tenant whose calls they are.")],
    mapping: Annotated[
        list[str] | None,
        typer.Option(help="Which column has which fact, such as from=ANI or started=Date+Time; repeat for several."),
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option(help="The zone of dates without one, such as Europe/London; there is no default.")
    ] = None,
    date_format: Annotated[
        str | None, typer.Option(help="The form of dates that are not ISO 8601, such as '%d/%m/%Y %H:%M'.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="The table's encoding, if the first bytes lack it.")] = None,
    without_facts: Annotated[
        bool, typer.Option("--without-facts", help="Also import files without any facts.")
    ] = False,
    parallel: Annotated[int, typer.Option(min=1, max=MOST_AT_ONCE, help="How many files are sent at once.")] = 4,
    report: Annotated[
        Path | None, typer.Option(help="The file for the result of each file, in JSON Lines; it is replaced.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and compare all files, and send none.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Import without a question, whatever the warnings about old calls.")
    ] = False,
) -> None:
    """Import an existing archive of recordings with a recorder's token, each file once.

    A table, or a JSON file beside each recording, has the parties, the time and the file's SHA-256. The report has each
    file that is left out, with the reason. Run it again after any interruption: files that the vault has are not sent
    again.
    """
    now = datetime.now(UTC)
    terms = terms_of(await call.client.get(f"/v1/ingest/{segment(tenant)}"))
    reader = Reader(
        mapping=mapping or (),
        dates=Dates(zone=zone_of(time_zone), form=date_format),
        encoding=encoding,
        without_facts=without_facts,
        max_bytes=terms.max_bytes,
    )
    plan = reader.plan(source)
    _require_zones(plan.items)
    copies = await _copies(plan.items)
    items = [item for item in plan.items if item.name not in copies]
    run = _Run(
        source=source,
        tenant=tenant,
        dry_run=dry_run,
        terms=terms,
        began=now,
        plan=plan,
        preview=retention_preview(items, terms, now=now),
        left_out=[*plan.left_out, *copies.values()],
    )
    written = report or Path(f"{REPORT_PREFIX}{now:%Y%m%dT%H%M%SZ}.jsonl")
    if written.exists() and not is_report(written):
        raise Refused(f"{written} exists and is no report of an import; nothing was sent", hint="name another file")
    _confirm(call, run, yes=yes)
    _write(written, run)  # fails before any file is sent, if the report cannot be written
    work = ParallelWork(parallel)
    try:
        await _send(call, run, items, work)
    finally:
        _write(written, run)
    _tell(call, run, work, written)


async def _send(call: Remote, run: _Run, items: Sequence[Item], work: ParallelWork) -> None:
    """Send every call; recordings of one call key are sent one after the other."""
    title = "comparing" if run.dry_run else "importing"
    with call.out.progress(title, sum(item.size for item in items)) as bar:
        sender = Sender(
            call.client, run.tenant, moved=lambda count: bar.advance(bar.task_ids[0], count), dry_run=run.dry_run
        )

        async def one(group: Sequence[Item]) -> None:
            async for each in sender.group(group):
                if isinstance(each, Done):
                    run.done.append(each)
                else:
                    run.left_out.append(each)

        await work.run(by_key(items), one)


def _require_zones(items: Sequence[Item]) -> None:
    zoneless = [item for item in items if item.stated.zoneless]
    if zoneless:
        first = "" if zoneless[0].stated.line is None else f", the first in line {zoneless[0].stated.line}"
        raise Invalid(
            f"{len(zoneless)} of {len(items)} starts have no time zone{first}; nothing was sent",
            hint="name their time zone: --time-zone Europe/London, or UTC",
        )


async def _copies(items: Sequence[Item]) -> dict[str, LeftOut]:
    """Return the files that are copies of another: the same bytes, start and facts, and no call key of their own."""
    found: dict[str, LeftOut] = {}
    for group in alike(items):
        first: dict[str, Item] = {}
        for item in group:
            try:
                original = first.setdefault(await hashed(item.path), item)
            except OSError:
                continue
            if original is not item:
                more = f"a copy of {original.name}"
                found[item.name] = LeftOut(name=item.name, line=item.stated.line, why=Why.DUPLICATE, more=more)
    return found


def _confirm(call: Remote, run: _Run, *, yes: bool) -> None:
    """Print how old calls would be kept, and ask, before any is sent."""
    if run.preview.harmless:
        return
    for line in words(run.preview, run.terms, tenant=run.tenant):
        call.out.note(line)
    if run.dry_run or yes:
        return
    if call.out.as_json or not sys.stdin.isatty():
        raise Refused("nothing was sent: there is no terminal to confirm at", hint="read the above, then pass --yes")
    if not typer.confirm("import them?", err=True):
        raise Refused("nothing was sent")


def _write(path: Path, run: _Run) -> None:
    with whole_file(path, force=True) as file:
        for line in (*_done_lines(run), *_left_lines(run.left_out)):
            # A name that is not UTF-8 is written with JSON's own escapes.
            file.write(json.dumps(line, ensure_ascii=False).encode(errors="backslashreplace") + b"\n")


def _done_lines(run: _Run) -> Iterator[dict[str, Any]]:
    for done in run.done:
        stated = done.item.stated
        life = run.terms.life(stated.started, now=run.began)
        yield {
            "file": done.item.name,
            "line": stated.line,
            "outcome": done.outcome.value,
            "recording_id": done.recording,
            "bytes": done.item.size,
            "sha256": done.sha256,
            "started": None if stated.started is None else rfc3339(stated.started),
            # What was there keeps its date: a later import neither shortens nor lengthens it.
            "kept_until": done.kept_until if done.outcome is Outcome.THERE else rfc3339(life.retain_until),
            "due_at_once": is_due(life, run.terms, now=run.began),
            "facts_left_out": dict(stated.unusable),
            "truncated_beside": done.beside,
        }


def _left_lines(left_out: Iterable[LeftOut]) -> Iterator[dict[str, Any]]:
    for left in left_out:
        yield {"file": left.name, "line": left.line, "outcome": "left out", "why": left.why.value, "more": left.more}


def _document(run: _Run, report: Path) -> dict[str, Any]:
    outcomes = Counter(done.outcome for done in run.done)
    return {
        "tenant": run.tenant,
        "source": str(run.source),
        "dry_run": run.dry_run,
        "files": run.files,
        "imported": outcomes[Outcome.IMPORTED],
        "would_be_imported": outcomes[Outcome.WOULD],
        "already_there": outcomes[Outcome.THERE],
        "left_out": dict(Counter(left.why.value for left in run.left_out)),
        "not_tried": run.not_tried,
        "bytes": sum(done.item.size for done in run.done),
        "facts_left_out": dict(Counter(name for done in run.done for name in done.item.stated.unusable)),
        "truncated_beside": sum(done.beside is not None for done in run.done),
        "columns_not_used": list(run.plan.unused),
        "due_at_once": run.preview.due,
        "due_from": _instant(run.preview.due_from),
        "counted_as_younger": run.preview.bounded,
        "counted_as_younger_until": _instant(run.preview.bounded_until),
        "without_start": run.preview.unstated,
        "report": str(report),
    }


def _tell(call: Remote, run: _Run, work: ParallelWork, report: Path) -> None:
    """Print the result; an import that left files out or ended early is an error."""
    document = _document(run, report)
    call.out.show(document, list(_fields(document)))
    work.finish(call.out, run.not_tried)
    if run.terms.imports_until is not None and run.terms.imports_until < datetime.now(UTC):
        call.out.note(
            "the token no longer imports: later calls are kept as if they had begun shortly before their receipt"
        )
    if run.preview.due and not run.dry_run:
        call.out.hint(f"those with due_at_once in {report} go from {document['due_from']} on: hold those to keep")
    if run.left_out:
        raise Refused(
            f"{len(run.left_out)} of {run.files} files and rows are left out",
            hint=f"{report} lists them with the reasons",
        )


def _fields(document: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for name, value in document.items():
        if isinstance(value, dict):
            words_of = name.replace("_", " ")
            yield from ((f"{words_of}: {key}", count) for key, count in value.items())
        elif value not in (None, 0, [], False) or name == ("would_be_imported" if document["dry_run"] else "imported"):
            yield name.replace("_", " "), value


def _instant(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)
