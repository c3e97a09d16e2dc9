"""The served vault on a real S3 server behind a network that refuses, cuts and loses answers."""

import hashlib
import random

import aiohttp
import pytest

from tests.helpers.recorder import Recorder, until
from tests.helpers.seaweed import ACCESS_KEY, REGION, SECRET_KEY
from tests.helpers.server import in_process, make_site
from tests.helpers.tcp_proxy import Mode, tcp_proxy

pytestmark = pytest.mark.xdist_group("seaweed")


@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.CUT, Mode.DROP_ANSWERS])
async def test_calls_outlive_a_broken_network_to_the_object_store(tmp_path, seaweed, mode):
    async with tcp_proxy(seaweed.port) as proxy:
        s3 = {
            "bucket": f"served-{mode.value}",
            "endpoint": f"http://127.0.0.1:{proxy.port}",
            "region": REGION,
            "allowed_regions": [REGION],
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
        }
        site = await make_site(
            tmp_path,
            server={"finish_wait": "200ms"},
            segments={"max_bytes": "64KiB", "max_age": "300ms"},
            objects={"kind": "s3", "s3": s3},
        )
        calls = {f"call-{number}": random.randbytes(90_000 + number) for number in range(4)}
        async with in_process(site) as (vault, url), aiohttp.ClientSession(url) as client:
            recorder = Recorder(site, client)
            assert (await recorder.put("before", b"x" * 10_000))[0] == 201
            await recorder.ends_as("before", "sealed")
            await proxy.set(mode, cut_after=20_000)
            for key, data in calls.items():
                status, _, receipt = await recorder.put(key, data)
                assert (status, receipt["sha256"]) == (201, hashlib.sha256(data).hexdigest())
            await until(lambda: vault.storer.store_down)
            ready, body = await recorder.ready()
            assert (ready, body["object_store"]) == (200, "down, the journal absorbs")
            for key, data in calls.items():
                assert await recorder.audio(key) == data
            await proxy.set(Mode.FORWARD)
            for key, data in calls.items():
                await recorder.ends_as(key, "sealed", seconds=40)
                assert await recorder.audio(key) == data
            assert await recorder.audio("before") == b"x" * 10_000
            await until(lambda: vault.journal.usage().files <= 1)
