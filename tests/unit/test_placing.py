import pytest
from multidict import CIMultiDict

from vault.errors import Invalid
from vault.protocol.uploads.http_put import Placing, placing

GSTREAMER = {"User-Agent": "GStreamer souphttpclientsink libsoup/2.74.3"}


@pytest.mark.parametrize(
    ("headers", "append", "expected"),
    [
        ({}, False, Placing()),
        ({"Upload-Offset": "7"}, False, Placing(offset=7, resends=False)),
        ({"Content-Range": "bytes 7-9/*"}, False, Placing(offset=7, length=3, ends=False)),
        ({"Content-Range": "bytes 7-9/10"}, False, Placing(offset=7, length=3)),
        ({"Content-Range": "bytes 7-9/11"}, False, Placing(offset=7, length=3, ends=False)),
        ({"Content-Range": "bytes 7-9/*", "upload-offset": "7"}, False, Placing(offset=7, length=3, ends=False)),
        ({}, True, Placing(ends=False, appends=True)),
        (GSTREAMER, False, Placing(ends=False, appends=True)),
        (
            {**GSTREAMER, "Content-Range": "bytes 7-9/*"},
            False,
            Placing(offset=7, length=3, ends=False, appends=True),
        ),
        ({"User-Agent": "curl/7.88.1"}, False, Placing()),
    ],
)
def test_a_body_belongs_where_its_headers_say(headers, append, expected):
    assert placing(CIMultiDict(headers), append=append) == expected


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": value}
        for value in (
            "",
            "bytes */10",
            "bytes 7-6/*",
            "bytes 7-9/9",
            "bytes -5/*",
            "bytes 7-9",
            "bits 7-9/*",
            "bytes 7-9/*, 10-11/*",
            "bytes 7-99999999999999999/*",
            "bytes \u0667-\u0669/*",
        )
    ]
    + [{"Upload-Offset": value} for value in ("", "-1", "1e3", "\u0667", "9" * 17)]
    + [{"Upload-Offset": "6", "Content-Range": "bytes 7-9/*"}],
)
def test_a_place_that_cannot_be_is_refused(headers):
    with pytest.raises(Invalid):
        placing(CIMultiDict(headers))
