"""Tables of calls are read as spreadsheets and programs write them."""

import csv
import io
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from cli.archives.tables import Dates, NoZone, columns_of, read_table, row_facts
from vault.errors import Invalid

HEADER = ["file", "from", "Note, internal"]
ROW = ["a.wav", "Zoë, Bürgerbüro", 'said "no"\r\ntwice']


def sheet(delimiter, ends="\r\n"):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=ends).writerows([HEADER, ROW, ["", "", ""], ["b.wav"]])
    return text.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_whatever_a_spreadsheet_makes_of_a_table_it_says_the_same(delimiter, encoding):
    for text in (sheet(delimiter), sheet(delimiter, "\n"), f"sep={delimiter}\r\n{sheet(delimiter)}"):
        table = read_table(text.encode(encoding), name="calls.csv")
        assert table.columns == HEADER
        first, second = table.rows
        assert first.members == dict(zip(HEADER, ROW, strict=True))
        assert second.members == {"file": "b.wav"}
        # The line where a row begins, in a file whose first row has a line end inside a cell.
        assert second.line - first.line == 3


def test_json_says_what_csv_says_and_keeps_numbers_as_they_are_written():
    call = '{"file": "a.wav", "call": {"from": 441632960001, "cost": 1.20}, "tags": ["x", 7, null], "to": null}'
    for name, text in (
        ("calls.json", f"[{call}]"),
        ("calls.json", f'{{"version": 1, "calls": [{call}]}}'),
        ("calls.jsonl", f"\n{call}\n"),
        ("calls.ndjson", f"{call}\r\n"),
        ("calls", f"[{call}]"),
    ):
        (row,) = read_table(text.encode("utf-8-sig"), name=name).rows
        assert row.members == {"file": "a.wav", "call.from": "441632960001", "call.cost": "1.20", "tags": ("x", "7")}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("calls.csv", b""),
        ("calls.csv", b"file,from,from\na,b,c\n"),
        ("calls.csv", b"file,from\n" + b"x" * 200_000 + b",\n"),
        ("calls.json", b'"file"'),
        ("calls.json", b"{"),
        ("calls.json", b"[" * 100_000),
        ("calls.json", b'{"file": "a.wav", "calls": ["x"], "more": []}\x00'),
    ],
)
def test_what_is_no_table_is_refused(name, data):
    with pytest.raises(Invalid):
        read_table(data, name=name)


def test_an_encoding_that_is_told_is_the_one():
    assert read_table(sheet(",").encode("cp850"), name="a.csv", encoding="cp850").rows[0].members["from"] == ROW[1]
    for encoding in ("nothing", "ascii"):
        with pytest.raises(Invalid):
            read_table(sheet(",").encode(), name="a.csv", encoding=encoding)


def test_a_row_with_more_cells_than_the_header_is_not_guessed():
    rows = read_table(b"file,from\na.wav,1,2\nb.wav,1,,\n", name="a.csv").rows
    assert [row.fault is not None for row in rows] == [True, False]


def test_columns_are_found_by_their_usual_names_and_never_by_a_guess_between_two():
    columns = columns_of(["Recording File", "ANI", "dst", "Start-Time", "from name"], [])
    assert {name: list(found) for name, found in columns.items() if found} == {
        "file": ["Recording File"],
        "from": ["ANI"],
        "to": ["dst"],
        "started": ["Start-Time"],
    }
    assert columns_of(["src", "From"], [])["from"] == ["From"]
    with pytest.raises(Invalid, match="could both be 'from'"):
        columns_of(["src", "ani"], [])
    assert columns_of(["src", "ani"], ["from=ANI"])["from"] == ["ani"]
    assert columns_of(["src", "ani"], ["from="])["from"] == ()
    assert columns_of(["Date", "Time", "a+b"], ["started=date+time", "tags=a+b"])["tags"] == ["a+b"]
    for mapping in ("from", "nothing=ani", "from=dst", "from=src+ani"):
        with pytest.raises(Invalid):
            columns_of(["src", "ani"], [mapping])


def test_a_start_is_read_in_its_own_zone_or_in_the_one_that_was_told():
    london, said = Dates(zone=ZoneInfo("Europe/London")), datetime(2024, 7, 1, 8, 30, tzinfo=UTC)
    for text in ("2024-07-01 09:30", "2024-07-01T09:30:00", "2024-07-01T10:30:00+02:00", "1719822600", "1719822600000"):
        assert london.read(text) == said
    assert Dates(zone=ZoneInfo("Europe/London"), form="%d/%m/%Y %H:%M").read("01/07/2024 09:30") == said
    # The clocks went back at 02:00: the first of the two.
    assert london.read("2024-10-27 01:30") == datetime(2024, 10, 27, 0, 30, tzinfo=UTC)
    with pytest.raises(NoZone):
        Dates().read("2024-07-01 09:30")
    for text in ("01/07/2024 09:30", "tomorrow", "20240701093000"):
        with pytest.raises(ValueError, match="Invalid isoformat string"):
            Dates().read(text)


def test_what_a_row_states_and_cannot_be_used_is_noted_and_costs_nothing_else():
    data = b"file,from,to,direction,started,tags\na.wav,4.41633E+11,01632960100,across,1999,x\n"
    table = read_table(data, name="a.csv")
    call = row_facts(table.rows[0], columns_of(table.columns, []), Dates(zone=ZoneInfo("UTC")))
    assert call.unusable == {"from": "value", "direction": "value", "started": "value"}
    assert (call.fault, call.facts.called, call.facts.tags, call.started) == (None, "01632960100", ("x",), None)


def test_an_agent_stands_for_the_party_on_this_side_where_a_row_names_nobody():
    data = b"file,from,to,direction,agent\na,1,,in,zoe\nb,,2,out,zoe\nc,1,2,in,zoe\nd,1,,,zoe\n"
    table = read_table(data, name="a.csv")
    calls = [row_facts(row, columns_of(table.columns, []), Dates()).facts for row in table.rows]
    assert [(call.caller, call.called) for call in calls] == [("1", "zoe"), ("zoe", "2"), ("1", "2"), ("1", None)]
    assert {call.tags for call in calls} == {("agent:zoe",)}
