"""Pages of unfinished uploads and of their parts."""

from datetime import UTC, datetime

import pytest

from vault.errors import Invalid
from vault.protocol.s3.listing import ListedPart, Unfinished, UploadsQuery, parts_page, uploads_page, uploads_query

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)


def there(*names):
    return [Unfinished(key=key, upload=upload, initiated=AT) for key, upload in names]


ALL = there(("b/2", "u4"), ("a", "u2"), ("b/1", "u3"), ("a", "u1"), ("c c", "u5"), ("b-", "u6"))


def page(uploads=ALL, **parameters):
    wanted = uploads_query({name.replace("_", "-"): str(value) for name, value in parameters.items()})
    members = uploads_page("bucket", wanted, uploads, owner="tok")
    found = [(dict(each)["Key"], dict(each)["UploadId"]) for name, each in members if name == "Upload"]
    prefixes = [dict(each)["Prefix"] for name, each in members if name == "CommonPrefixes"]
    return found, prefixes, {name: value for name, value in members if isinstance(value, str)}


def test_uploads_come_by_key_and_then_by_age():
    assert page()[0] == [("a", "u1"), ("a", "u2"), ("b-", "u6"), ("b/1", "u3"), ("b/2", "u4"), ("c c", "u5")]
    assert page(prefix="b/")[0] == [("b/1", "u3"), ("b/2", "u4")]
    assert page(uploads=[]) == (
        [],
        [],
        {
            "Bucket": "bucket",
            "KeyMarker": "",
            "UploadIdMarker": "",
            "Prefix": "",
            "MaxUploads": "1000",
            "IsTruncated": "false",
        },
    )


def test_keys_that_share_what_is_before_the_delimiter_are_one_prefix():
    assert page(delimiter="/")[:2] == ([("a", "u1"), ("a", "u2"), ("b-", "u6"), ("c c", "u5")], ["b/"])
    assert page(delimiter="/", prefix="b/")[:2] == ([("b/1", "u3"), ("b/2", "u4")], [])


@pytest.mark.parametrize("asked", [{}, {"delimiter": "/"}, {"prefix": "b"}])
def test_pages_together_are_the_whole_whatever_their_size(asked):
    whole = page(**asked)[:2]
    for most in range(1, 8):
        uploads, prefixes, marker = [], [], {}
        while True:
            found, common, told = page(max_uploads=most, **marker, **asked)
            assert len(found) + len(common) <= most
            uploads += found
            prefixes += common
            if told["IsTruncated"] == "false":
                break
            marker = {"key_marker": told["NextKeyMarker"], "upload_id_marker": told.get("NextUploadIdMarker", "")}
        assert (uploads, prefixes) == whole


def test_a_marker_of_an_upload_alone_says_nothing_and_one_of_a_key_passes_all_of_it():
    assert page(upload_id_marker="u9") == page()
    assert page(key_marker="a")[0][0] == ("b-", "u6")
    assert page(key_marker="a", upload_id_marker="u1")[0][0] == ("a", "u2")
    assert page(max_uploads=0) == ([], [], {**page(uploads=[])[2], "MaxUploads": "0"})


def test_keys_are_told_in_url_encoding_if_that_is_asked_for():
    found, _, told = page(encoding_type="url", prefix="c c")
    assert (found, told["Prefix"], told["EncodingType"]) == ([("c%20c", "u5")], "c%20c", "url")


def test_what_is_no_count_and_no_encoding_is_refused():
    assert uploads_query({"max-uploads": "5000"}) == UploadsQuery()
    for parameters in ({"max-uploads": "-1"}, {"max-uploads": "x"}, {"encoding-type": "base64"}):
        with pytest.raises(Invalid):
            uploads_query(parameters)


def test_parts_come_in_pages_too():
    parts = [ListedPart(number=number, etag="e", size=number) for number in (1, 2, 5)]

    def numbers(**parameters):
        members = parts_page({name.replace("_", "-"): value for name, value in parameters.items()}, parts)
        told = {name: value for name, value in members if isinstance(value, str)}
        return [dict(each)["PartNumber"] for name, each in members if name == "Part"], told.get("NextPartNumberMarker")

    assert numbers() == (["1", "2", "5"], None)
    assert numbers(max_parts="2") == (["1", "2"], "2")
    assert numbers(max_parts="2", part_number_marker="2") == (["5"], None)
    with pytest.raises(Invalid):
        numbers(max_parts="many")
