"""Calls as a recorder sends them: one HTTP request each, a tenth of a second at a time, during the call."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

from cli.client import Client
from cli.demo.stage import BYTES_A_SECOND
from vault.errors import FormatError

CONTENT_TYPE: Final = "audio/PCMU;rate=8000;channels=2"
_PIECES_A_SECOND = 10
_PIECE_BYTES = BYTES_A_SECOND // _PIECES_A_SECOND


@dataclass(slots=True, kw_only=True)
class Call:
    """One call; `sent` counts the bytes handed to the network so far."""

    tenant: str
    key: str
    caller: str
    audio: bytes = field(repr=False)
    sent: int = 0

    @property
    def path(self) -> str:
        """The address where it is recorded."""
        return f"/v1/ingest/{self.tenant}/{self.key}"

    async def _pieces(self) -> AsyncIterator[bytes]:
        began = time.monotonic()
        for number, start in enumerate(range(0, len(self.audio), _PIECE_BYTES)):
            # Paced from the beginning, so that small delays do not add up.
            await asyncio.sleep(max(began + number / _PIECES_A_SECOND - time.monotonic(), 0))
            piece = self.audio[start : start + _PIECE_BYTES]
            yield piece
            self.sent += len(piece)

    async def stream(self, recorder: Client) -> dict[str, Any]:
        """Send the call in real time and return the server's receipt."""
        headers = {
            "Content-Type": CONTENT_TYPE,
            "Call-From": self.caller,
            "Call-To": "+442079460100",
            "Call-Direction": "inbound",
            "Call-Tags": "demo",
        }
        async with recorder.request("PUT", self.path, headers=headers, data=self._pieces()) as response:
            receipt = json.loads(await response.read())
        if not isinstance(receipt, dict):
            raise FormatError("the receipt is not a JSON object")
        return receipt

    async def durable(self, recorder: Client) -> tuple[str, int]:
        """Return the recording's id and how many of its bytes the server states as durable."""
        async with recorder.request("HEAD", self.path) as response:
            return response.headers["Recording-Id"], int(response.headers["Upload-Offset"])
