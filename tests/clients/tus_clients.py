"""Uploads one file with tuspy or aiotus, as a recorder's script would: `python -m tests.clients.tus_clients JSON`."""

import asyncio
import io
import json
import sys
import time

import aiotus
from tusclient import client as tuspy


def _say(event, **more):
    sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
    sys.stdout.flush()


def _tuspy(ask):
    tus = tuspy.TusClient(ask["url"], headers={"Authorization": f"Bearer {ask['token']}"})
    uploader = tus.uploader(
        ask["file"],
        url=ask.get("resume"),
        metadata=ask["metadata"],
        chunk_size=ask.get("chunk", 100_000),
        retries=20,
        retry_delay=0.2,
        upload_checksum=ask.get("checksum", False),
    )
    if ask.get("resume") is None:
        uploader.set_url(uploader.create_url())
    _say("url", url=uploader.url, offset=uploader.offset)
    while uploader.offset < uploader.get_file_size():
        uploader.upload_chunk()
        _say("chunk", accepted=uploader.offset)
        time.sleep(ask.get("pause", 0))
    _say("success", url=uploader.url)


class _Paced(io.FileIO):
    def __init__(self, path, pause):
        super().__init__(path)
        self._pause = pause

    def read(self, size=-1):
        piece = super().read(size)
        _say("chunk", accepted=self.tell() - len(piece))
        time.sleep(self._pause)
        return piece


async def _aiotus(ask):
    retry = aiotus.RetryConfiguration(retry_attempts=20, max_retry_period_seconds=0.3)
    headers = {"Authorization": f"Bearer {ask['token']}"}
    metadata = {name: value.encode() for name, value in ask["metadata"].items()}
    with _Paced(ask["file"], ask.get("pause", 0)) as file:
        location = await aiotus.upload(
            ask["url"], file, metadata, config=retry, headers=headers, chunksize=ask.get("chunk", 100_000)
        )
    told = await aiotus.metadata(str(location), config=retry, headers=headers)
    _say("success", url=str(location), metadata=sorted(told))


if __name__ == "__main__":
    _ask = json.loads(sys.argv[1])
    if _ask["client"] == "tuspy":
        _tuspy(_ask)
    else:
        asyncio.run(_aiotus(_ask))
