"""Ports in memory, without a disk and without a network. Each passes the contract of its port."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.helpers.webhooks import Receiver
from vault.errors import NotFound, Truncated, Unavailable
from vault.ids import RecordingId
from vault.ports.holds import Messenger
from vault.ports.journal import Room, Spool, SpoolFile

Kept = dict[RecordingId, dict[tuple[int, int], bytes]]


@dataclass(kw_only=True)
class MemorySpoolFile(SpoolFile):
    spool: MemorySpool
    tenant: str
    part: tuple[RecordingId, int] | None = None
    data: bytes = b""
    charged: int = 0

    @property
    def size(self) -> int:
        return len(self.data)

    async def append(self, data: bytes) -> None:
        self.spool.room.take(self.tenant, len(data))
        self.charged += len(data)
        self.data += data

    async def read(self, start: int, end: int) -> bytes:
        if end > len(self.data):
            raise Truncated("a part ends early")
        return self.data[start:end]

    async def keep(self, version: int = 0) -> None:
        recording, number = self.part
        replaced = self.spool.disk[recording].get((number, version), b"")
        self.spool.disk[recording][number, version] = self.data
        self.spool.room.give(self.tenant, len(replaced))
        self.charged = 0

    async def close(self) -> None:
        self.spool.room.give(self.tenant, self.charged)
        self.charged = 0


@dataclass(kw_only=True)
class MemorySpool(Spool):
    """A spool whose `disk` is all that a crash leaves of it."""

    room: Room
    disk: Kept = field(default_factory=dict)

    async def prepare(self, recording: RecordingId) -> None:
        self.disk.setdefault(recording, {})

    async def begin(self, recording: RecordingId, number: int, *, tenant: str) -> SpoolFile:
        return MemorySpoolFile(spool=self, tenant=tenant, part=(recording, number))

    async def scratch(self, *, tenant: str) -> SpoolFile:
        return MemorySpoolFile(spool=self, tenant=tenant)

    async def open(self, recording: RecordingId, number: int, version: int = 0) -> SpoolFile:
        try:
            data = self.disk[recording][number, version]
        except KeyError as error:
            raise NotFound("there is no such part") from error
        return MemorySpoolFile(spool=self, tenant="", data=data)

    async def kept(self) -> Mapping[RecordingId, Mapping[tuple[int, int], int]]:
        return {recording: {part: len(data) for part, data in parts.items()} for recording, parts in self.disk.items()}

    async def drop(self, recording: RecordingId, *, tenant: str) -> None:
        self.room.give(tenant, sum(map(len, self.disk.pop(recording, {}).values())))


@dataclass(kw_only=True)
class MemoryMessenger(Messenger):
    """Carries messages to receivers that it knows, by their addresses, and waits for none."""

    receivers: list[Receiver]

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        for each in self.receivers:
            if each.url == url:
                each.heard.append((dict(headers), body))
                answer = each.answers.pop(0) if each.answers else 204
                if answer is not None and 200 <= answer < 300:
                    return
                raise Unavailable(f"the webhook answered {answer}")
        raise Unavailable("the webhook cannot be reached")
