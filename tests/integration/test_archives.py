"""An archive of recordings comes into the vault with its true dates, each file once, and nothing is lost in silence."""

import asyncio
import base64
import csv
import hashlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import wave
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from cli.main import main
from tests.helpers.app import TENANTS, app, sound
from tests.helpers.programs import ffmpeg
from vault.errors import Conflict
from vault.model import Role

__all__ = ["app"]

OURS = TENANTS[0]
RECENT = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2)


def wav(seed=1, seconds=1):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(sound(16_000 * seconds, seed))
    return file.getvalue()


def digest(data):
    return hashlib.sha256(data).hexdigest()


def write(directory, **files):
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def unstable(text):
    """Return a text without what another day or another vault would print otherwise."""
    return re.sub(r"20\d\d-\d\d-\d\d(T[\d:.]+Z)?|\d{8}T\d{6}Z", "WHEN", re.sub(r" +$", "", text, flags=re.MULTILINE))


def lines(directory, *rows):
    (directory / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def command(app, monkeypatch, capsys, tmp_path):
    """Run the command as a recorder; return its exit code, its document and what it said beside."""
    monkeypatch.setenv("CALLVAULT_SERVER", app.url)
    monkeypatch.chdir(tmp_path)

    async def run(*words, token=None, tenant=OURS):
        monkeypatch.setenv("CALLVAULT_TOKEN", token or app.token(Role.RECORDER))
        code = await asyncio.to_thread(main, [*map(str, words), "--json", *(["--tenant", tenant] if tenant else [])])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else None, said.err

    return run


async def importing(app):
    until = (app.clock.now() + timedelta(days=14)).isoformat()
    body = {"name": "archive", "role": "recorder", "tenant": OURS, "imports_until": until}
    return (await app.ask("POST", "/v1/tokens", Role.OPERATOR, body=body)).json["token"]


def reported(document):
    return [json.loads(line) for line in Path(document["report"]).read_text().splitlines()]


async def recordings(app):
    """Return what the vault has, by call key."""
    page = (await app.ask("GET", "/v1/recordings?limit=1000")).json["recordings"]
    shown = [(await app.ask("GET", f"/v1/recordings/{each['id']}")).json for each in page]
    return {each["call"]["call_key"]: each for each in shown}


async def test_a_table_as_a_spreadsheet_writes_it_brings_every_kind_of_file_with_its_facts_and_its_true_start(
    app, command, tmp_path
):
    archive = tmp_path / "store"
    tone = [ffmpeg(), "-loglevel", "error", "-f", "lavfi", "-i", "sine=d=1"]
    write(archive, **{"2026/a.wav": wav(1), "b.ulaw": sound(8000)})
    subprocess.run([*tone, str(archive / "c.ogg"), str(archive / "d.mp3")], check=True)
    local = RECENT.astimezone(ZoneInfo("Europe/London"))
    rows = [
        ["Datei", "Call ID", "ANI", "DNIS", "Direction", "Date", "Time", "Queue", "Agent", "Cost"],
        ["2026\\a.wav", "call 1", "01632 960001", "+441632960100", "Inbound", f"{local:%d.%m.%Y}", f"{local:%H:%M:%S}"],
        ["b.ulaw", "call-2", '"Zoë; Müller" <sip:+441632960002@pbx>', "", "out", "", ""],
        ["c.ogg", "call-3", "4.41633E+11", "", "sideways", "", ""],
        ["d.mp3", "call-4", "", "", "", "99.99.2026", "10:00"],
    ]
    text = io.StringIO()
    csv.writer(text, delimiter=";").writerows([*rows[:1], [*rows[1], "Bürgerbüro", "zoë", "1,20"], *rows[2:]])
    (archive / "calls.csv").write_bytes(text.getvalue().encode("cp1252"))
    words = ["--mapping", "file=Datei", "--mapping", "started=Date+Time", "--date-format", "%d.%m.%Y %H:%M:%S"]
    words += ["--mapping", "tags=queue", "--time-zone", "Europe/London"]

    code, document, said = await command("import", archive / "calls.csv", *words, "--yes")
    assert (code, document["imported"], document["left_out"]) == (0, 4, {}), said
    assert "3 of 4 calls have no usable start" in said
    assert document["facts_left_out"] == {"from": 1, "direction": 1, "started": 1}
    assert document["columns_not_used"] == ["Cost"]
    found = await recordings(app)
    first = found["call=201"]
    assert (first["call"]["caller"], first["call"]["called"]) == ("+441632960001", "+441632960100")
    assert (first["call"]["direction"], first["call"]["tags"]) == ("inbound", ["Bürgerbüro", "agent:zoë"])
    assert datetime.fromisoformat(first["started_at"]) == RECENT
    assert found["call-2"]["call"]["caller"] == "+441632960002"
    assert found["call-2"]["media"]["codec"] == "pcmu"
    assert [found[f"call-{number}"]["media"]["container"] for number in (2, 3, 4)] == ["raw", "ogg", "mp3"]
    for line in reported(document):
        assert (await app.play(line["recording_id"])).body == (archive / line["file"]).read_bytes()

    code, again, _ = await command("import", archive / "calls.csv", *words, "--yes")
    assert (code, again["imported"], again["already_there"]) == (0, 0, 4)
    assert await recordings(app) == found


async def test_a_report_takes_the_place_of_nothing_but_a_report_and_is_not_imported(app, command, tmp_path):
    archive = tmp_path / "store"
    write(archive, **{"a.wav": wav(1)})
    (archive / "calls.csv").write_text("file\na.wav\n")
    for taken in ("a.wav", "calls.csv"):
        before = (archive / taken).read_bytes()
        code, _, said = await command("import", archive, "--report", archive / taken)
        assert code == 3
        assert "exists and is no report of an import; nothing was sent" in said
        assert (archive / taken).read_bytes() == before
    for outcome in ("imported", "already_there"):
        code, document, said = await command("import", archive, "--yes", "--report", archive / "import.jsonl")
        assert (code, document[outcome]) == (0, 1), said


async def test_whatever_is_left_out_is_reported_with_its_reason(app, command, tmp_path):
    archive = tmp_path / "store"
    write(archive, **{name: wav(seed) for seed, name in enumerate(("good.wav", "other.wav", "bare.wav", "copied.wav"))})
    write(archive, **{"copy.wav": wav(3), "text.wav": b"not audio", "empty.wav": b"", "sub/notes.txt": b"x"})
    (archive / "link.wav").symlink_to(tmp_path / "secret.wav")
    (tmp_path / "secret.wav").write_bytes(wav(9))
    start = RECENT.isoformat()
    names = ["copied.wav", "copy.wav", "text.wav", "empty.wav", "link.wav", "missing.wav", "../secret.wav", "\0"]
    lines(
        archive,
        {"file": "good.wav", "sha256": digest(wav(0)).upper(), "started": start},
        {"file": "other.wav", "sha256": digest(wav(0)), "started": start},
        {"file": "good.wav", "started": start, "from": "someone else"},
        {"file": "bare.wav", "sha256": "abc"},
        *({"file": name, "started": start} for name in names),
    )
    with (archive / "manifest.jsonl").open("a") as file:
        file.write('{"file": \n[]\n')
    code, document, said = await command("import", archive)
    assert (code, document["imported"], document["files"]) == (3, 2, 15), said
    left = {(line["file"] or line["line"], line["why"]) for line in reported(document) if line["outcome"] == "left out"}
    assert left == {
        ("other.wav", "hash differs"),
        ("good.wav", "duplicate"),
        ("bare.wav", "row cannot be used"),
        ("copy.wav", "duplicate"),
        ("text.wav", "unknown type"),
        ("empty.wav", "empty"),
        ("link.wav", "outside the directory"),
        ("missing.wav", "no file"),
        ("../secret.wav", "outside the directory"),
        ("\0", "unreadable"),
        (13, "row cannot be used"),
        (14, "row cannot be used"),
        ("sub/notes.txt", "unknown type"),
    }
    assert document["left_out"] == {**document["left_out"], "duplicate": 2, "row cannot be used": 3}
    assert len(await recordings(app)) == 2
    assert "13 of 15 files and rows are left out" in said


class Somebody(io.StringIO):
    """A person at a terminal, and what they answer."""

    def isatty(self):
        return True


async def test_nothing_of_old_calls_is_sent_before_a_person_knows_what_becomes_of_them(
    app, command, monkeypatch, tmp_path
):
    write(tmp_path, **{"old.wav": wav(1), "new.wav": wav(2)})
    old = app.clock.now() - timedelta(days=730)
    lines(tmp_path, {"file": "old.wav", "started": old.isoformat()}, {"file": "new.wav", "started": RECENT.isoformat()})
    for token, words in (
        (None, "1 of 2 calls began more than 7d ago, and this token does not import"),
        (await importing(app), "1 of 2 calls are past their retention of 10d: they would be due at once"),
    ):
        code, document, said = await command("import", tmp_path, "--dry-run", token=token)
        assert (code, document["would_be_imported"]) == (0, 2)
        assert words in said
        code, document, said = await command("import", tmp_path, token=token)
        assert (code, document) == (3, None)
        assert words in said
    monkeypatch.setattr("sys.stdin", Somebody("n\n"))
    assert await asyncio.to_thread(main, ["import", str(tmp_path), "--tenant", OURS]) == 3
    assert await recordings(app) == {}

    code, document, said = await command("import", tmp_path, "--yes", token=token)
    assert (code, document["imported"], document["due_at_once"]) == (0, 2, 1)
    (due,) = [line for line in reported(document) if line["due_at_once"]]
    shown = (await recordings(app))["old.wav"]
    assert (due["recording_id"], due["file"]) == (shown["id"], "old.wav")
    assert datetime.fromisoformat(shown["started_at"]) == old.replace(microsecond=old.microsecond // 1000 * 1000)
    kept = datetime.fromisoformat(shown["retain_until"]) - datetime.fromisoformat(due["kept_until"])
    assert abs(kept) < timedelta(seconds=20)

    # Another import says when the vault lets it go, and not when it would had it come later.
    app.clock.advance(hours=6)
    code, document, _ = await command("import", tmp_path, "--yes", token=token)
    said = {line["recording_id"]: line["kept_until"] for line in reported(document)}
    assert said == {each["id"]: each["retain_until"] for each in (await recordings(app)).values()}

    # It goes on its day, and no later import of the archive brings it back.
    app.clock.advance(days=2)
    await app.sweep()
    code, document, _ = await command("import", tmp_path, "--yes", token=token)
    assert (code, document["already_there"], document["left_out"]) == (3, 1, {"shredded before": 1})


async def test_dates_without_a_zone_are_not_guessed(app, command, tmp_path):
    write(tmp_path, **{"a.wav": wav(1)})
    lines(tmp_path, {"file": "a.wav", "started": "2026-11-29 09:30"})
    code, document, said = await command("import", tmp_path)
    assert (code, document) == (2, None)
    assert "1 of 1 starts have no time zone" in said
    assert "line 1" in said


async def test_the_page_about_archives_shows_what_the_command_prints(app, command, monkeypatch, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "archives.md").read_text()
    table = re.search(r"^calls.csv:\n\n```\n(.*?)```", page, re.MULTILINE | re.DOTALL)[1]
    (tmp_path / "calls.csv").write_text(table.replace("SHA", digest(wav(1))))
    write(tmp_path, **{"2024/0117.wav": wav(1), "2024/0118.wav": wav(2)})
    await app.ask("PUT", f"/v1/tenants/{OURS}", Role.OPERATOR, body={"retention": "90d"})
    monkeypatch.setenv("CALLVAULT_TOKEN", await importing(app))
    shown = re.findall(r"^\$ callvault (import .*)\n((?:.*\n)*?)```", page, re.MULTILINE)
    assert len(shown) == 2
    for line, printed in shown:
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            await asyncio.to_thread(main, shlex.split(line.replace("northfield-college", OURS)))
        assert unstable(said.getvalue()) == unstable(printed.replace("northfield-college", OURS)), said.getvalue()


async def test_a_refusal_in_the_middle_is_told_as_what_it_is_and_a_name_that_is_no_text_is_reported(
    app, command, monkeypatch, tmp_path
):
    archive = tmp_path / "store"
    write(archive, **{"a\udcff.wav": wav(1), "b.wav": wav(2)})
    asked = app.vault.tenants.retention

    async def ended(tenant):
        if monkeypatch.ended:
            raise Conflict("the contract with this tenant has ended")
        monkeypatch.ended = True
        return await asked(tenant)

    monkeypatch.ended = False
    monkeypatch.setattr(app.vault.tenants, "retention", ended)
    code, document, _ = await command("import", archive, "--without-facts", "--yes")
    assert (code, document["left_out"]) == (3, {"refused": 2})
    assert {line["more"] for line in reported(document)} == {"the contract with this tenant has ended"}
    monkeypatch.undo()
    monkeypatch.setenv("CALLVAULT_SERVER", app.url)
    monkeypatch.chdir(tmp_path)
    code, document, _ = await command("import", archive, "--without-facts", "--yes")
    assert (code, document["imported"]) == (0, 2)
    assert {line["file"] for line in reported(document)} == {"a\udcff.wav", "b.wav"}
    assert "a=FF.wav" in await recordings(app)


async def test_what_an_interrupted_import_left_is_completed_or_said(app, command, tmp_path):
    files = {"open.wav": wav(1), "over.wav": wav(2)}
    write(tmp_path, **files)
    lines(tmp_path, *({"file": name, "started": RECENT.isoformat()} for name in files))
    begun = {}
    for name, data in files.items():
        headers = {"Content-Type": "audio/wav", "Content-Range": f"bytes 0-9999/{len(data)}"}
        answer = await app.ask("PUT", f"/v1/ingest/{OURS}/{name}", Role.RECORDER, data=data[:10_000], headers=headers)
        assert answer.status == 202
        begun[name] = answer.json["recording_id"]
        if name == "over.wav":
            session = app.vault.ingest.live_call(OURS, name)
            await app.vault.ingest.finish(session, ended="truncated:resume_grace")
            await session.done.wait()
    code, document, said = await command("import", tmp_path)
    assert (code, document["imported"], document["truncated_beside"]) == (0, 2, 1), said
    found = await recordings(app)
    assert {key: each["state"] for key, each in found.items()} == {
        "open.wav": "sealed",
        "over.wav": "truncated",
        "over.wav~2": "sealed",
    }
    assert found["open.wav"]["id"] == begun["open.wav"]
    assert (await app.play(found["open.wav"]["id"])).body == files["open.wav"]
    assert (await app.play(found["over.wav~2"]["id"])).body == files["over.wav"]
    (line,) = [line for line in reported(document) if line["file"] == "over.wav"]
    assert line["truncated_beside"] == begun["over.wav"]
    code, document, _ = await command("import", tmp_path)
    assert (code, document["already_there"]) == (0, 2)


async def test_the_recordings_of_one_call_are_told_apart_by_their_hashes_and_a_foreign_one_is_no_loss(
    app, command, tmp_path
):
    write(tmp_path, **{f"{leg}.wav": wav(leg) for leg in range(4)}, **{"same.wav": wav(0)})
    rows = [{"file": f"{leg}.wav", "call_id": "call-1", "started": RECENT.isoformat()} for leg in range(3)]
    rows += [{"file": "same.wav", "call_id": "call-1", "started": RECENT.isoformat()}]
    lines(tmp_path, *rows)
    (tmp_path / "3.wav").rename(tmp_path / "3.wave")
    code, document, _ = await command("import", tmp_path / "manifest.jsonl")
    assert (code, document["imported"], document["left_out"]) == (3, 3, {"duplicate": 1})
    found = await recordings(app)
    assert found.keys() == {"call-1", "call-1~2", "call-1~3"}

    (tmp_path / "3.wave").rename(tmp_path / "3.wav")
    lines(tmp_path, *reversed(rows[:3]))
    code, document, _ = await command("import", tmp_path / "manifest.jsonl")
    assert (code, document["already_there"]) == (0, 3)
    lines(tmp_path, rows[2])
    code, document, _ = await command("import", tmp_path / "manifest.jsonl")
    assert (code, document["already_there"]) == (0, 1)
    lines(tmp_path, {**rows[0], "file": "3.wav"})
    code, document, _ = await command("import", tmp_path / "manifest.jsonl")
    assert (code, document["left_out"]) == (3, {"call key taken": 1})
    assert await recordings(app) == found


async def test_an_import_that_was_killed_goes_on_and_leaves_nothing_twice_and_nothing_out(app, command, tmp_path):
    archive = tmp_path / "store"
    write(archive, **{f"{number:02}.wav": wav(number, 4) for number in range(8)})
    for number in range(8):
        facts = {"from": f"+4416329600{number:02}", "started": RECENT.isoformat()}
        (archive / f"{number:02}.wav.json").write_text(json.dumps(facts))
    environment = {**os.environ, "CALLVAULT_TOKEN": app.token(Role.RECORDER)}
    words = [sys.executable, "-m", "cli", "import", str(archive), "--tenant", OURS, "--parallel", "2"]
    child = await asyncio.create_subprocess_exec(*words, env=environment, stderr=subprocess.DEVNULL)
    async with asyncio.timeout(20):
        while len((await app.ask("GET", "/v1/recordings")).json["recordings"]) < 3:
            await asyncio.sleep(0.005)
    with suppress(ProcessLookupError):
        child.send_signal(signal.SIGKILL)
    assert await child.wait() == -signal.SIGKILL
    code, document, said = await command("import", archive)
    assert (code, document["imported"] + document["already_there"]) == (0, 8), said
    assert document["already_there"] >= 1
    found = await recordings(app)
    whole = {key: each for key, each in found.items() if each["state"] == "sealed"}
    assert len(whole) == 8
    for line in reported(document):
        assert (await app.play(line["recording_id"])).body == (archive / line["file"]).read_bytes()


async def test_what_was_exported_is_imported_as_what_it_was(app, command, tmp_path):
    """Into another tenant, by the manifest alone; every access is in the trail, and a second export makes none."""
    said = {"Call-From": "01632 960001", "Call-Direction": "inbound", "Call-Started": RECENT.isoformat()}
    await app.upload("first", wav(1), media="audio/wav", headers={**said, "Call-Tags": "a,b"})
    await app.upload("second", sound(1600, 2), media="audio/PCMA;rate=8000;channels=2", headers=said)
    headers = {"Content-Type": "audio/wav", "Content-Range": f"bytes 0-9999/{len(wav(3))}"}
    await app.ask("PUT", f"/v1/ingest/{OURS}/live", Role.RECORDER, data=wav(3)[:10_000], headers=headers)
    into = tmp_path / "out"
    words = ["export", into, "--purpose", "access-request", "--format", "raw"]
    held = await app.hold((await recordings(app))["second"]["id"])
    code, document, _ = await command(*words, token=app.token(Role.AGENT), tenant=None)
    assert (code, document["exported"]) == (3, 1)
    assert set(document["left_out"].values()) == {"still being recorded", "the role agent may not do this (play_held)"}

    code, document, _ = await command(*words, token=app.token(Role.COMPLIANCE), tenant=None)
    assert (code, document["exported"], document["already_there"]) == (3, 1, 1)
    with (into / "manifest.jsonl").open("a") as file:
        file.write('{"file": "torn')
    code, document, _ = await command(*words, "--state", "sealed", token=app.token(Role.COMPLIANCE), tenant=None)
    assert (code, document["exported"], document["already_there"], document["left_out"]) == (0, 0, 2, {})
    played = [entry for entry in await app.audit("access.play") if entry["outcome"] == "ok"]
    assert [(entry["role"], entry["purpose"]) for entry in played] == [
        ("agent", "access-request"),
        ("compliance", "access-request"),
    ]

    theirs = TENANTS[1]
    code, document, said = await command("import", into, token=app.token(Role.RECORDER, theirs), tenant=theirs)
    assert (code, document["imported"], document["left_out"], document["facts_left_out"]) == (0, 2, {}, {}), said
    page = (await app.ask("GET", "/v1/recordings", tenant=theirs)).json["recordings"]
    for each in page:
        copy = (await app.ask("GET", f"/v1/recordings/{each['id']}", tenant=theirs)).json
        original = (await recordings(app))[copy["call"]["call_key"]]
        assert (copy["call"], copy["media"], copy["started_at"]) == (
            original["call"],
            original["media"],
            original["started_at"],
        )
        assert (await app.play(each["id"], tenant=theirs)).body == (await app.play(original["id"])).body
    assert held.status == 201


async def test_an_export_that_was_killed_goes_on_and_fetches_again_what_is_not_what_it_says(app, command, tmp_path):
    for number in range(6):
        await app.upload(f"call-{number}", wav(number), media="audio/wav", headers={"Call-Started": RECENT.isoformat()})
    environment = {**os.environ, "CALLVAULT_TOKEN": app.token(Role.COMPLIANCE)}
    words = ["export", tmp_path / "out", "--purpose", "access-request"]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", *map(str, words), "--parallel", "1", env=environment, stderr=subprocess.DEVNULL
    )
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(lambda: [*tmp_path.glob("out/*/*.wav")]):
            await asyncio.sleep(0.001)
    with suppress(ProcessLookupError):
        child.send_signal(signal.SIGKILL)
    assert await child.wait() == -signal.SIGKILL
    changed = next(tmp_path.glob("out/*/*.wav"))
    changed.write_bytes(b"not that")
    (changed.parent / ".rec_1.partial").write_bytes(b"left")
    code, document, said = await command(*words, token=app.token(Role.COMPLIANCE), tenant=None)
    assert (code, document["exported"] + document["already_there"]) == (0, 6), said
    assert document["exported"] >= 1
    table = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert len({line["recording_id"] for line in table}) == len(table) == 6
    for line in table:
        assert digest((tmp_path / "out" / line["file"]).read_bytes()) == line["sha256"]
    assert {path.name for path in tmp_path.glob("out/*/*")} == {Path(line["file"]).name for line in table}
    assert sum(not path.is_dir() for path in tmp_path.glob("out/.*")) == 0


async def test_a_recording_that_fails_verification_keeps_no_other_from_being_exported(app, command, tmp_path):
    damaged = await app.upload("damaged", wav(1), media="audio/wav")
    await app.upload("whole", wav(2), media="audio/wav")
    stored = [path for path in app.config.objects_path.glob(f"**/{damaged}/*") if not path.name.startswith("manifest")]
    for path in stored:
        path.write_bytes(bytes(reversed(path.read_bytes())))
    words = ["export", tmp_path / "out", "--purpose", "access-request"]
    code, document, said = await command(*words, token=app.token(Role.COMPLIANCE), tenant=None)
    assert (code, document["exported"], [*document["left_out"]]) == (5, 1, [damaged]), said
    assert "not a CVS1 object" in document["left_out"][damaged]


async def test_an_export_stays_out_of_a_directory_that_has_something_else(command, app, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    code, document, said = await command("export", tmp_path, "--purpose", "complaint", token="x", tenant=None)
    assert (code, document) == (3, None)
    assert "has other files in it" in said


async def test_what_arrives_is_compared_with_the_hash_that_the_vault_says(app, command, tmp_path, monkeypatch):
    recording = await app.upload("call", wav(1), media="audio/wav")
    answer = await app.play(recording, raw=False, headers={"Range": "bytes=0-9"})
    assert (answer.status, answer.headers["Repr-Digest"]) == (
        206,
        f"sha-256=:{base64.b64encode(hashlib.sha256(wav(1)).digest()).decode()}:",
    )
    assert "Repr-Digest" not in (await app.play(await app.upload("bare", sound(800)), raw=False)).headers
    words = ["recordings", "play", recording, "--purpose", "complaint", "-o", tmp_path / "call.wav"]
    opening = app.vault.playback.open

    async def opened(*args, **options):
        return replace(await opening(*args, **options), sha256="0" * 64)

    monkeypatch.setattr(app.vault.playback, "open", opened)
    code, _, said = await command(*words, token=app.token(Role.COMPLIANCE), tenant=None)
    assert code == 5
    assert "its SHA-256 differs" in said
    assert not (tmp_path / "call.wav").exists()
