"""WAV files whose recorder died before it wrote their sizes, downloaded and read by libsndfile."""

from __future__ import annotations

import asyncio
import io
import struct
from typing import Any

import soundfile

from tests.helpers.app import App, app, sound
from vault.model import Role

__all__ = ["app"]

SAMPLES = sound(20_000)
UNKNOWN = 0xFFFFFFFF


def made(container: str = "WAV", subtype: str = "PCM_16", channels: int = 2, *, title: str | None = None) -> bytes:
    """Return a finished file of libsndfile."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 16_000, channels, subtype, format=container) as writer:
        if title is not None:
            writer.title = title
        writer.buffer_write(SAMPLES, dtype="int16")
        if title is not None:
            writer.comment = title * 3
    return file.getvalue()


def read(file: bytes) -> bytes:
    """Return what libsndfile plays of a file."""
    with soundfile.SoundFile(io.BytesIO(file)) as judge:
        return bytes(judge.buffer_read(dtype="int16"))


def told(file: bytes, *, riff: int, data: int) -> bytes:
    """Return the file with other sizes in its head."""
    at = file.index(b"data") + 4
    return file[:4] + struct.pack("<I", riff) + file[8:at] + struct.pack("<I", data) + file[at + 4 :]


def padded(file: bytes, size: int) -> bytes:
    """Return the file with a chunk that means nothing before its samples."""
    at = file.index(b"data")
    return file[:at] + b"JUNK" + struct.pack("<I", size) + bytes(size) + file[at:]


def padded_early(file: bytes, size: int) -> bytes:
    """Return the file with a chunk that means nothing before the one that tells its format."""
    return file[:12] + b"bext" + struct.pack("<I", size) + bytes(size) + file[12:]


def without_ds64(file: bytes, told_samples: int = 0) -> bytes:
    """Return an RF64 file whose recorder did not come back to its 64-bit sizes."""
    return file[:20] + struct.pack("<QQQ", 0, told_samples, 0) + file[44:]


SIZES = ((0, 0), (8, 0), (36, 0), (4088, 0), (356, 320), (UNKNOWN, UNKNOWN))
DEAD = {
    **{(riff, data): told(made(), riff=riff, data=data) for riff, data in SIZES},
    **{(riff, data, "padded"): told(padded(made(), 4096), riff=riff, data=data) for riff, data in SIZES},
    "WAVEX": told(made("WAVEX"), riff=8, data=0),
    "RF64": without_ds64(made("RF64")),
    "RF64 that tells its first write": without_ds64(made("RF64"), 320),
    "padded RF64": without_ds64(padded(made("RF64"), 4096)),
    "padded beyond one look": told(padded(made(), 200_000), riff=8, data=0),
    "RF64 padded beyond one look": without_ds64(padded(made("RF64"), 65_536)),
    "padded before its format": told(padded_early(made(), 100_000), riff=0, data=0),
    "a tag in front": b"ID3\x04\0\0\0\0\x02\0" + bytes(256) + told(made(), riff=0, data=0),
    "a long tag in front": b"ID3\x04\0\0\0\x08\0\0" + bytes(1 << 17) + told(made(), riff=0, data=0),
}


async def sealed(app: App, recording: str) -> dict[str, Any]:
    """Return a recording as it is shown once it is sealed."""
    async with asyncio.timeout(20):
        while True:
            shown = (await app.ask("GET", f"/v1/recordings/{recording}", Role.COMPLIANCE)).json
            if shown["state"] == "sealed":
                return shown
            await asyncio.sleep(0.02)


async def test_every_frame_of_a_file_whose_recorder_died_is_played(app):
    for number, (name, file) in enumerate(DEAD.items()):
        recording = await app.upload(f"call-{number}", file, media="audio/wav")
        assert read((await app.play(recording, raw=False)).body) == SAMPLES, name
        assert (await app.play(recording)).body == file, name
        shown = await sealed(app, recording)
        media = shown["media"]
        assert shown["duration_ms"] == len(SAMPLES) * 1000 // (16_000 * 2 * 2), name
        assert (media["rate"], media["channels"], media["content"]) == (16_000, 2, None), name


async def test_a_finished_file_comes_back_byte_for_byte(app):
    finished = [made("WAV", subtype, 1) for subtype in ("PCM_16", "PCM_24", "ULAW", "FLOAT")]
    finished += [made("WAVEX"), made("RF64"), made(title="call 4711"), made("RF64", title="call 4711")]
    behind_padding = padded(made(), 4096)
    finished.append(told(behind_padding, riff=len(behind_padding) - 8, data=len(SAMPLES)))
    for number, file in enumerate(finished):
        recording = await app.upload(f"call-{number}", file, media="audio/wav")
        assert (await app.play(recording, raw=False)).body == file, number
