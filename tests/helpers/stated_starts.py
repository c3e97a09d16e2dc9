"""Recordings whose start a recorder states."""

from datetime import timedelta

from aiohttp import FormData

from tests.helpers.app import sound
from vault.model import Role

AUDIO = sound(1_600)


WAV_HEAD = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x07\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0data\xff\xff\xff\xff"


async def rtpengine(app, key, start):
    said = {"Call-ID": key, "File-Name": "a.wav", "File-Format": "wav", "Call-Start-Time": f"{start.timestamp():.6f}"}
    form = FormData()
    form.add_field("ngfile", WAV_HEAD + AUDIO, filename="a.wav")
    headers = {f"X-Recording-{name}": value for name, value in said.items()}
    answer = await app.ask("POST", "/v1/ingest/northfield/rtpengine", Role.RECORDER, data=form, headers=headers)
    assert answer.status == 201, answer.body
    return answer.json["recording_id"]


async def newest(app):
    """Return what came last, whenever its call began."""
    return max(each["id"] for each in (await app.ask("GET", "/v1/recordings?limit=1000")).json["recordings"])


def near(one, other):
    return abs(one - other) < timedelta(milliseconds=2)
