"""One suite for every Messenger, over HTTP and in memory: one attempt, bounded and silent about where it went."""

import asyncio
import time
from datetime import timedelta

import pytest
from aiohttp import web

from tests.helpers.authorities import Authority
from tests.helpers.memory import MemoryMessenger
from tests.helpers.webhooks import receiving
from vault.errors import Unavailable
from vault.protocol.webhook import checked_webhook
from vault.server.webhooks import HttpMessenger

SENT = {"webhook-id": "msg_1", "content-type": "application/json"}


@pytest.fixture(params=["http", "memory"])
async def carried(request):
    """Return a messenger that waits little, and a receiver that it reaches."""
    async with receiving() as lead:
        patience = timedelta(milliseconds=200)
        yield MemoryMessenger(receivers=[lead]) if request.param == "memory" else HttpMessenger(patience=patience), lead


async def test_two_hundreds_acknowledge_and_everything_else_does_not(carried):
    messenger, lead = carried
    lead.answers = [200, 201, 204, 299]
    for _ in range(4):
        await messenger.post(lead.url, b"{}", SENT)
    for status in (301, 302, 307, 400, 401, 404, 410, 429, 500, 503):
        lead.answers = [status]
        with pytest.raises(Unavailable, match=str(status)) as caught:
            await messenger.post(lead.url, b"{}", SENT)
        assert "s3cret" not in repr(caught.value)
    assert len(lead.heard) == 14


async def test_a_message_arrives_as_it_was_given(carried):
    messenger, lead = carried
    await messenger.post(lead.url, b'{"any": "bytes"}', SENT)
    [(headers, body)] = lead.heard
    assert body == b'{"any": "bytes"}'
    assert SENT.items() <= {name.lower(): value for name, value in headers.items()}.items()


async def test_a_receiver_that_says_nothing_is_left_in_time(carried):
    messenger, lead = carried
    lead.answers = [None]
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await messenger.post(lead.url, b"{}", SENT)
    assert time.monotonic() - began < 2


async def test_a_receiver_that_cannot_be_reached_is_an_outage_whose_message_does_not_hold_its_address(carried):
    messenger, lead = carried
    with pytest.raises(Unavailable) as caught:
        await messenger.post("http://127.0.0.1:1/s3cret", b"{}", SENT)
    assert "s3cret" not in repr(caught.value) + str(caught.value.__cause__)
    assert not lead.heard


async def test_an_answer_without_end_is_not_read():
    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)
            await asyncio.sleep(0)

    app = web.Application()
    app.router.add_post("/", endless)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with asyncio.timeout(2):
            await HttpMessenger().post(f"http://127.0.0.1:{runner.addresses[0][1]}/", b"{}", SENT)
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:1/?k=s3cret",
        "https://s3cret..invalid/",
        f"https://s3cret{'x' * 70}.invalid/",
        "https://s3cret.invalid:0/",
        "https://s3cret.invalid/%zz",
        "https://s3cret-.invalid",
    ],
)
async def test_an_address_that_leads_nowhere_is_an_outage_whose_message_does_not_hold_it(url):
    assert checked_webhook(url) == url
    with pytest.raises(Unavailable) as caught:
        await HttpMessenger().post(url, b"{}", SENT)
    assert "s3cret" not in repr(caught.value) + str(caught.value.__cause__)


async def test_a_receiver_is_trusted_by_the_machines_authorities_of_the_time_of_the_message(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none yet"))
    authority = Authority(tmp_path)
    async with receiving(tls=authority.context("127.0.0.1")) as lead:
        with pytest.raises(Unavailable):
            await HttpMessenger().post(lead.url, b"{}", SENT)
        assert not lead.heard
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        await HttpMessenger().post(lead.url, b"{}", SENT)
        assert len(lead.heard) == 1


async def test_plain_http_where_tls_is_expected_is_an_outage():
    async with receiving() as lead:
        with pytest.raises(Unavailable):
            await HttpMessenger().post(lead.url.replace("http:", "https:"), b"{}", SENT)
        assert not lead.heard
