import itertools
from datetime import UTC, datetime

import pytest

from vault.errors import (
    ChecksumMismatch,
    InconsistentLength,
    Malformed,
    TooLarge,
    UnsupportedMedia,
    UnsupportedVersion,
)
from vault.protocol.uploads import ietf, tus
from vault.protocol.uploads.resumable import (
    STEPS,
    Description,
    Stage,
    Step,
    Verb,
    choose_call_key,
    content_type,
    describe,
    require_length,
    require_room,
)

LIMIT = 1_000


def test_every_request_at_every_stage_has_one_step():
    assert set(STEPS) == set(itertools.product(Stage, Verb))


@pytest.mark.parametrize("verb", Verb)
def test_nothing_is_taken_after_the_end(verb):
    assert STEPS[Stage.COMPLETE, verb] in {Step.TELL, Step.KEPT}
    assert STEPS[Stage.GONE, verb] is Step.GONE


def test_a_request_that_is_heard_is_not_interrupted_except_to_terminate():
    assert STEPS[Stage.BUSY, Verb.APPEND] is STEPS[Stage.BUSY, Verb.ASK] is Step.LOCKED
    assert STEPS[Stage.BUSY, Verb.TERMINATE] is Step.TAKE_OVER
    assert {STEPS[Stage.SILENT, verb] for verb in Verb} == {Step.TAKE_OVER}


# The examples of the protocol's sections Creation and Checksum.


def test_the_creation_of_the_specification_is_read():
    headers = {
        "Upload-Length": "100",
        "Upload-Metadata": "filename d29ybGRfZG9taW5hdGlvbl9wbGFuLnBkZg==,is_confidential",
    }
    read = tus.creation(headers, limit=LIMIT)
    assert read == tus.Creation(length=100, metadata={"filename": "world_domination_plan.pdf"})


def test_the_deferred_creation_of_the_specification_is_read():
    assert tus.creation({"Upload-Defer-Length": "1"}, limit=LIMIT).length is None


def test_the_checksum_of_the_specification_is_right_for_its_bytes_and_no_others():
    headers = {"Content-Type": tus.BYTES, "Upload-Offset": "0", "Upload-Checksum": "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0="}
    checksum = tus.append(headers, limit=LIMIT).checksum
    checksum.require([b"hello ", b"world"])
    with pytest.raises(ChecksumMismatch):
        checksum.require([b"hello worlds"])


def test_what_is_not_1_0_0_is_refused():
    tus.require_version({"Tus-Resumable": "1.0.0"})
    for headers in ({}, {"Tus-Resumable": "0.2.2"}):
        with pytest.raises(UnsupportedVersion):
            tus.require_version(headers)


@pytest.mark.parametrize("value", ["x" * 201, "\x07"])
def test_a_fact_that_is_no_short_text_is_left_out_and_named(value):
    found = describe({"from": value, "to": "201"}).facts
    assert (found.caller, found.called, found.unusable) == (None, "201", {"from": "text"})


def test_an_instant_needs_its_time_zone():
    assert describe({"started": "2026-01-31T09:30:00Z"}).started_at == datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
    # An instant that no call began at is one all the same: the start is replaced, the audio kept.
    assert describe({"started": "0001-01-01T00:00:00+23:59"}).started_at is not None
    for value in ("2026-01-31T09:30:00", "soon"):
        found = describe({"started": value})
        assert (found.started_at, found.facts.unusable) == (None, {"started": "value"})


def test_a_named_call_keeps_its_name_and_a_file_gets_one_of_its_own():
    assert choose_call_key(Description(call_key="call-1", file_name="x.wav"), "f00") == ("call-1", "")
    assert choose_call_key(Description(file_name="my call (1).wav"), "f00") == ("my=20call=20=281=29.wav", "f00")
    assert choose_call_key(Description(file_name="\u00fc.wav"), "f00") != choose_call_key(
        Description(file_name="\u00e9.wav"), "f00"
    )
    assert choose_call_key(Description(), "f00") == ("upload-f00", "f00")
    assert len(choose_call_key(Description(file_name="ü" * 10_000 + ".wav"), "f00")[0]) <= 180


def test_a_generic_type_gives_way_to_the_files_name():
    assert content_type(Description(media_type="audio/wav", file_name="a.mp3")) == "audio/wav"
    for generic in (None, "", "application/octet-stream", "null"):
        assert content_type(Description(media_type=generic, file_name="a.Opus")) == "audio/ogg"
        assert content_type(Description(media_type=generic, file_name="a")) is None


def test_no_request_passes_the_announced_length():
    require_room(5, 5, 10)
    require_room(5, None, 10)
    require_room(5, 50, None)
    with pytest.raises(TooLarge):
        require_room(5, 6, 10)
    require_length(10, 10, offset=10)
    require_length(None, 10, offset=10)
    require_length(10, None, offset=10)
    for known, announced, offset in ((10, 11, 0), (None, 4, 5)):
        with pytest.raises(InconsistentLength):
            require_length(known, announced, offset=offset)


# Structured fields (RFC 9651) as the draft uses them.


@pytest.mark.parametrize(
    ("value", "complete"), [("?1", True), ("?0", False), (" ?1 ", True), ("?1;q=1", True), ("?0 ;x", False)]
)
def test_completeness_is_a_structured_boolean(value, complete):
    assert ietf.creation({"Upload-Complete": value}, None, limit=LIMIT).complete is complete


@pytest.mark.parametrize("value", ["1", "true", "?2", "?1, ?0", "", '"?1"'])
def test_another_completeness_is_as_if_it_were_not_there(value):
    with pytest.raises(Malformed):
        ietf.creation({"Upload-Complete": value}, None, limit=LIMIT)


@pytest.mark.parametrize("value", ["-1", "1.0", "x", "1" * 16])
def test_another_length_is_as_if_it_were_not_there(value):
    read = ietf.creation({"Upload-Complete": "?0", "Upload-Length": value}, None, limit=LIMIT)
    assert read.length is None


def test_the_length_comes_from_either_indicator_and_both_must_agree():
    whole = {"Upload-Complete": "?1"}
    assert ietf.creation(whole, 100, limit=LIMIT).length == 100
    assert ietf.creation({**whole, "Upload-Length": "100"}, None, limit=LIMIT).length == 100
    assert ietf.creation({"Upload-Complete": "?0"}, 100, limit=LIMIT).length is None
    with pytest.raises(InconsistentLength):
        ietf.creation({**whole, "Upload-Length": "101"}, 100, limit=LIMIT)
    part = {"Content-Type": ietf.PARTIAL, "Upload-Offset": "40", **whole}
    assert ietf.append(part, 60, limit=LIMIT).length == 100
    with pytest.raises(UnsupportedMedia):
        ietf.append({**part, "Content-Type": tus.BYTES}, 60, limit=LIMIT)


def test_an_interim_response_is_the_drafts():
    # draft-ietf-httpbis-resumable-upload, Upload Creation, example A.
    assert ietf.interim(8, {"Location": "https://example.com/upload/b530ce8ff", "Upload-Limit": "max-size=1"}) == (
        b"HTTP/1.1 104 Upload Resumption Supported\r\n"
        b"Upload-Draft-Interop-Version: 8\r\n"
        b"Location: https://example.com/upload/b530ce8ff\r\n"
        b"Upload-Limit: max-size=1\r\n\r\n"
    )


def test_limits_are_named_as_the_version_names_them():
    assert ietf.limits(6, max_size=9, age_seconds=60) == "max-size=9, expires=60"
    assert ietf.limits(8, max_size=9, age_seconds=60) == "max-size=9, max-age=60"
    assert ietf.limits(None, max_size=9, age_seconds=None) == "max-size=9"


@pytest.mark.parametrize(("value", "version"), [("6", 6), ("8", 8), ("7", None), ("", None), ("eight", None)])
def test_only_versions_spoken_here_are_interim_responses_sent_for(value, version):
    assert ietf.interop({"Upload-Draft-Interop-Version": value}) == version


def test_a_request_is_for_one_of_the_two_protocols():
    assert ietf.is_ietf({"Upload-Complete": "?1"})
    assert ietf.is_ietf({"Upload-Draft-Interop-Version": "8"})
    assert ietf.is_ietf({"Content-Type": ietf.PARTIAL})
    assert not ietf.is_ietf({"Tus-Resumable": "1.0.0", "Upload-Complete": "?1"})
    assert not ietf.is_ietf({})


def test_the_name_that_may_be_any_text_is_preferred():
    for disposition, name in (
        ("inline; filename=\"plain.wav\"; filename*=UTF-8''desk%201.wav", "desk 1.wav"),
        ('attachment; filename="plain.wav"', "plain.wav"),
        ("attachment; filename=plain.wav", "plain.wav"),
        ("attachment", None),
    ):
        headers = {"Upload-Complete": "?1", "Content-Disposition": disposition}
        assert ietf.creation(headers, None, limit=LIMIT).metadata.get("filename") == name
