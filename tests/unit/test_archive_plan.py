"""What an import would send of an archive, before anything is sent."""

import asyncio
import json
import os
import signal

import pytest

from cli.archives.plan import Item, Reader, Why, by_key, is_report
from cli.archives.sending import ParallelWork
from cli.archives.tables import Dates
from vault.errors import Forbidden, Invalid, Unavailable

WAV = b"RIFF\x24\x00\x00\x00WAVEfmt "


def read(source, **changes):
    settings = {"mapping": (), "dates": Dates(), "encoding": None, "without_facts": False, "max_bytes": 100}
    return Reader(**{**settings, **changes}).plan(source)


def shown(plan):
    return {item.name: item for item in plan.items}, {left.name: left.why for left in plan.left_out}


def test_facts_beside_a_file_are_its_own_and_an_export_of_one_recording_is_understood(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.wav", "sub/b.wav", "c.wav", "c.mp3", "d.wav", "e.wav"):
        (tmp_path / name).write_bytes(WAV)
    (tmp_path / "a.wav.json").write_text('{"ANI": "1", "src": "2"}')
    call = {
        "call_key": "k",
        "caller": "+44",
        "caller_sent": "044",
        "called": None,
        "direction": "inbound",
        "tags": ["x"],
    }
    exported = {
        "recording": {"id": "rec_1", "started_at": "2026-11-29T10:00:00.000Z", "call": call},
        "audio": {"sha256": "ab" * 32, "media_type": "audio/wav"},
    }
    (tmp_path / "sub/b.json").write_text(json.dumps(exported))
    (tmp_path / "c.json").write_text('{"from": "3"}')
    (tmp_path / "d.wav.json").write_text("{")
    (tmp_path / "e.wav.json").write_text("[]")
    (tmp_path / "nobodys.json").write_text("{}")
    (tmp_path / ".DS_Store").write_bytes(WAV)
    (tmp_path / "callvault-import-20261130T120000Z.jsonl").write_text("{}\n")
    items, left = shown(read(tmp_path))
    assert left == {
        "a.wav": Why.ROW,
        "d.wav": Why.ROW,
        "e.wav": Why.ROW,
        "c.wav": Why.NO_FACTS,
        "nobodys.json": Why.UNKNOWN_TYPE,
    }
    stated = items["sub/b.wav"].stated
    assert (items["sub/b.wav"].key, stated.facts.caller, stated.facts.tags, stated.sha256) == (
        "k",
        "044",
        ("x",),
        "ab" * 32,
    )
    assert stated.started.isoformat() == "2026-11-29T10:00:00+00:00"
    # Two files could have c.json; it is one's alone.
    assert items["c.mp3"].stated.facts.caller == "3"
    items, left = shown(read(tmp_path, without_facts=True, mapping=["from=ANI"]))
    assert items["a.wav"].stated.facts.caller == "1"
    assert items.keys() == {"a.wav", "sub/b.wav", "c.wav", "c.mp3"}
    assert items["c.wav"].key == "c.wav"


def test_a_file_is_what_its_first_bytes_are_and_bare_samples_are_what_is_said_of_them(tmp_path):
    files = {
        "mp3.wav": b"ID3\x04" + bytes(20),
        "wav": WAV,
        "a.alaw": b"\xd5" * 40,
        "b.raw": b"\xd5" * 40,
        "c.wav": b"\xd5" * 40,
        "d.amr": b"#!AMR\n",
        "large.wav": WAV + bytes(100),
    }
    rows = []
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        rows.append({"file": name, "content-type": {"b.raw": "audio/L16;rate=8000", "d.amr": "audio/amr"}.get(name)})
    (tmp_path / "manifest.json").write_text(json.dumps(rows))
    items, left = shown(read(tmp_path))
    assert {name: item.media_type for name, item in items.items()} == {
        "mp3.wav": "audio/mpeg",
        "wav": "audio/wav",
        "a.alaw": "audio/PCMA;rate=8000",
        "b.raw": "audio/L16;rate=8000",
    }
    assert left == {"c.wav": Why.UNKNOWN_TYPE, "d.amr": Why.UNKNOWN_TYPE, "large.wav": Why.TOO_LARGE}


def test_a_directory_has_one_table_and_a_table_names_files(tmp_path):
    (tmp_path / "manifest.csv").write_text("file\n")
    (tmp_path / "manifest.jsonl").write_text("")
    for source in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(Invalid):
            read(source)
    (tmp_path / "manifest.jsonl").unlink()
    (tmp_path / "calls.csv").write_text("from,to\n1,2\n")
    assert read(tmp_path).items == []
    with pytest.raises(Invalid, match="no column names the files"):
        read(tmp_path / "calls.csv")
    (tmp_path / "manifest.csv").rename(tmp_path / "notes.txt")
    (tmp_path / "a.wav").write_bytes(WAV)
    (tmp_path / "calls.csv").write_text("file\na.wav\n")
    assert shown(read(tmp_path))[0].keys() == {"a.wav"}
    (tmp_path / "more.tsv").write_text("file\n")
    with pytest.raises(Invalid, match="the directory has"):
        read(tmp_path)


def test_a_report_that_was_left_beside_the_table_is_neither_a_table_nor_a_recording(tmp_path):
    (tmp_path / "a.wav").write_bytes(WAV)
    (tmp_path / "calls.csv").write_text("file\na.wav\n")
    report = tmp_path / "import.jsonl"
    for content in ('{"file": "a.wav", "line": 2, "outcome": "imported"}\n', ""):
        report.write_text(content)
        assert is_report(report)
        found = read(tmp_path)
        assert (shown(found)[0].keys(), found.left_out) == ({"a.wav"}, [])
    report.write_text('{"file": "a.wav", "from": "1"}\n')
    assert not is_report(report)
    with pytest.raises(Invalid, match="the directory has"):
        read(tmp_path)
    for other in (tmp_path / "a.wav", tmp_path / "calls.csv", tmp_path):
        assert not is_report(other)


def test_call_keys_of_any_name_are_usable_and_those_of_one_call_stay_together(tmp_path):
    names = ["é/" + "x" * 200 + ".wav", "a b.wav", "c.wav", "d.wav"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(WAV)
    keys = [None, None, "5f3c@[2001:db8::1]", "5f3c@[2001:db8::1]"]
    rows = [{"file": name, "call_key": key} for name, key in zip(names, keys, strict=True)]
    (tmp_path / "e.wav").write_bytes(WAV)
    rows += [{"file": "e.wav", "call_key": "\ud800"}, {"file": "\ud800"}]
    (tmp_path / "calls.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plan = read(tmp_path / "calls.jsonl")
    assert [left.why for left in plan.left_out] == [Why.ROW, Why.UNREADABLE]
    groups = by_key(plan.items)
    assert [[item.name for item in group] for group in groups] == [names[:1], names[1:2], names[2:]]
    assert groups[0][0].key.startswith("=sha256=")
    assert all(isinstance(item, Item) and len(item.key) <= 180 for group in groups for item in group)


async def test_the_first_interruption_lets_what_is_under_way_end_and_begins_nothing_more():
    done = []

    async def handle(number):
        if number == 3:
            os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.01)
        done.append(number)

    work = ParallelWork(2)
    await work.run(range(10), handle)
    assert {3} < set(done) < set(range(6))
    assert work.error is None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


async def test_what_cannot_be_done_for_one_thing_alone_is_said_and_a_vault_that_is_away_ends_the_work():
    async def work(*refused, error):
        done = []

        async def handle(number):
            await asyncio.sleep(0)
            if number in refused:
                raise error
            done.append(number)

        work = ParallelWork(2)
        await work.run(range(100), handle)
        assert work.error is error
        return done

    assert await work(3, 4, 50, error=Unavailable("another node's")) == [n for n in range(100) if n not in (3, 4, 50)]
    assert await work(*range(3, 100), error=Unavailable("away")) == [0, 1, 2]
    assert set(await work(3, error=Forbidden("no longer"))) < set(range(6))
