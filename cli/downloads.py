"""Writes a recording's audio into a file and compares it with the hash that the vault states."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, BinaryIO, Final

import typer

from cli.client import Client, segment
from vault.errors import Invalid, Tampered

CHUNK_BYTES: Final = 1 << 16
_DIGEST: Final = "sha-256=:"
Shape = Annotated[str, typer.Option("--format", help="wav to listen, raw for the stored bytes.")]


def check_shape(shape: str) -> None:
    """Raise Invalid unless audio comes in this shape."""
    if shape not in {"wav", "raw"}:
        raise Invalid("--format is wav or raw")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What was written. `content_type` includes its parameters."""

    size: int
    sha256: str
    content_type: str
    media_type: str
    state: str | None


async def fetch(
    client: Client,
    recording: str,
    file: BinaryIO,
    *,
    purpose: str,
    shape: str,
    begun: Callable[[int | None], None] = lambda _: None,
    moved: Callable[[int], None] = lambda _: None,
) -> Fetched:
    """Write a recording's audio to `file` and return what was written; `begun` is called with the expected size.

    Truncated if the answer breaks off, Tampered if it does not have the stated hash; what was written is then useless.
    """
    digest, size = hashlib.sha256(), 0
    async with client.request(
        "GET",
        f"/v1/recordings/{segment(recording)}/audio",
        params={"format": shape},
        headers={"Purpose": purpose},
    ) as response:
        begun(response.content_length)
        async for piece in response.content.iter_chunked(CHUNK_BYTES):
            file.write(piece)
            digest.update(piece)
            size += len(piece)
            moved(len(piece))
        headers = response.headers
        stated = headers.get("Repr-Digest", "")
        if stated.startswith(_DIGEST) and stated != _DIGEST + base64.b64encode(digest.digest()).decode() + ":":
            raise Tampered("what arrived is not what the vault has: its SHA-256 differs", hint="try once more")
        return Fetched(
            size=size,
            sha256=digest.hexdigest(),
            content_type=headers.get("Content-Type", "application/octet-stream"),
            media_type=response.content_type,
            state=headers.get("Recording-State"),
        )
