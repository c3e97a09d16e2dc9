"""One server for all tests of a module that attacks it."""

import asyncio
import hashlib
import random
import time

import pytest

from tests.helpers.server import log_lines, make_site, session, zygote
from tests.helpers.wire import LIMIT, audio, fresh, put


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return asyncio.run(
        make_site(
            tmp_path_factory.mktemp("hostile"),
            server={"idle_timeout": "1s", "resume_grace": "1s", "max_recording_bytes": f"{LIMIT}B"},
            segments={"max_age": "300ms"},
        )
    )


@pytest.fixture(scope="module")
def server(site):
    with zygote() as process:
        yield process.start(site)
        # What aiohttp says of requests that it could not parse itself is no defect.
        defects = [
            line
            for line in log_lines(site)
            if not isinstance(line, dict) or (line["level"] == "error" and line["logger"] != "aiohttp.server")
        ]
        assert not defects, "hostile requests reached code that did not expect them"


@pytest.fixture
async def client(server):
    async with session(server) as opened:
        yield opened


@pytest.fixture
def key():
    return fresh("hostile")


@pytest.fixture
async def nothing_else_suffers(site, server):
    """Around every test here: the server still takes, keeps and returns a recording, and answers at once."""
    yield
    async with session(server) as opened:
        key, data = fresh("decent"), random.randbytes(3_000)
        began = time.monotonic()
        assert await put(opened, site, key, data) == (201, hashlib.sha256(data).hexdigest())
        assert await audio(opened, site, key) == data
        assert time.monotonic() - began < 5
