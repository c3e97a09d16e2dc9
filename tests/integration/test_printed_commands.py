"""Every shell block of docs/api.md, run by bash as it is printed and in its order, against a served vault.

Only what stands for something is replaced: the server's address, the tenant, and ids that end in an ellipsis, for which
the latest id of that kind is taken that a block printed. What a page says that a command prints is compared loosely.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.helpers.app import TENANTS, App, app
from tests.helpers.documents import ID, ROOT, SHELL, Block, blocks, commands, loosely
from vault.media.g711 import decode
from vault.media.wav import wav_header
from vault.model import Codec, Role

__all__ = ["app"]

TENANT = TENANTS[0]
SHOWN_TENANT = "northfield-college"
ULAW = bytes(range(256)) * 1875  # 480,000 bytes: a minute
BROKEN_AT = 160_000
METADATA = b"""<?xml version="1.0" encoding="UTF-8"?>
<recording xmlns="urn:ietf:params:xml:ns:recording:1"><datamode>complete</datamode>
<participant participant_id="p1"><nameID aor="sip:+441632960001@pbx.example"/></participant>
<participant participant_id="p2"><nameID aor="sip:+441632960100@pbx.example"/></participant></recording>"""

# Whose token $AUTH and CALLVAULT_TOKEN are below a heading, and whose $SECOND_PERSON.
SPEAKERS = {
    "HTTP API": (Role.OPERATOR, Role.OPERATOR),
    "Ingest (role `recorder`)": (Role.RECORDER, Role.RECORDER),
    "Resumable uploads": (Role.RECORDER, Role.RECORDER),
    "Pause and resume": (Role.RECORDER, Role.RECORDER),
    "SIPREC metadata": (Role.RECORDER, Role.RECORDER),
    "Recordings": (Role.COMPLIANCE, Role.DPO),
    "Holds": (Role.COMPLIANCE, Role.DPO),
    "Safeguarding flags": (Role.SAFEGUARDING_LEAD, Role.DPO),
    "Erasures": (Role.COMPLIANCE, Role.DPO),
    "Certificates": (Role.COMPLIANCE, Role.DPO),
    "Administration": (Role.OPERATOR, Role.OPERATOR),
}


@dataclass(slots=True, kw_only=True)
class Reader:
    """Somebody who pastes one block after another into a shell."""

    app: App
    folder: Path
    known: dict[str, str] = field(default_factory=dict)

    def told(self, text: str, heading: str) -> str:
        """Return a block's text with what stands for something replaced."""
        text = text.replace("http://127.0.0.1:8080", self.app.url.rstrip("/"))
        if heading != "Administration":  # where this tenant is made
            text = text.replace(SHOWN_TENANT, TENANT)
        text = text.replace("5f0c…", self.known.get("shown", "5f0c…"))
        return re.sub(rf"\b({ID})_…", lambda match: self.known.get(match[1], match[0]), text)

    def heard(self, said: str) -> None:
        for identifier in re.findall(rf"\b(?:{ID})_[0-9a-f]{{32}}\b", said):
            self.known[identifier.partition("_")[0]] = identifier
        for shown in re.findall(r'"shown": ?"([0-9a-f]{64})"', said):
            self.known["shown"] = shown
        for location in re.findall(r"^location: (\S+)", said, re.MULTILINE | re.IGNORECASE):
            self.known["location"] = location

    async def runs(self, block: Block, prelude: str) -> str:
        """Return what a block printed; each of its commands has to end well."""
        return "".join([await self._run(each, block, prelude) for each in commands(block.text)])

    async def _run(self, command: str, block: Block, prelude: str) -> str:
        first, second = (self.app.token(role) for role in SPEAKERS[block.heading])
        environment = {
            "PATH": f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "CALLVAULT_SERVER": self.app.url,
            "CALLVAULT_TOKEN": first,
            "RECORDER": f"Authorization: Bearer {self.app.token(Role.RECORDER)}",
            "SECOND_PERSON": f"Authorization: Bearer {second}",
            "LOCATION": self.known.get("location", ""),
        }
        script = f"set -euo pipefail\n{prelude}\n{self.told(command, block.heading)}"
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", script),
            cwd=self.folder,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode == 0, f"{block.name}\n{script}\n{out.decode()}\n{err.decode()}"
        self.heard(out.decode())
        return out.decode()

    def answered(self, block: Block, said: str) -> None:
        """Assert that a command printed what the page says: in the block behind it, or in a comment beside it."""
        # Beside a command stands a word for the reader, or the JSON or header that it prints.
        expected = re.findall(r"# (\{.*\}|[A-Z][\w-]+: \d+)$", block.text, re.MULTILINE)
        if block.answer is not None and "{" in block.answer:
            expected.append(re.sub(r"^\d{3} ", "", block.answer))
        for each in expected:
            assert loosely(each) in loosely(said), f"{block.name}\n{said}"

    @asynccontextmanager
    async def live(self, key: str) -> AsyncIterator[None]:
        """Have a call go on."""
        over, begun = asyncio.Event(), asyncio.Event()

        async def audio() -> AsyncIterator[bytes]:
            while not over.is_set():
                yield ULAW[:800]
                begun.set()
                await asyncio.sleep(0.1)

        sending = asyncio.create_task(self.app.upload(key, audio(), media="audio/basic"))
        await begun.wait()
        try:
            yield
        finally:
            over.set()
            await sending

    async def broken(self, key: str) -> None:
        """Have a call break off."""
        async with asyncio.timeout(20):
            address = self.app.url.removeprefix("http://").rstrip("/")
            host, port = address.rsplit(":", 1)
            _, writer = await asyncio.open_connection(host, int(port))
            head = (
                f"PUT /v1/ingest/{TENANT}/{key} HTTP/1.1\r\nHost: {address}\r\nContent-Type: audio/basic\r\n"
                f"Authorization: Bearer {self.app.token(Role.RECORDER)}\r\nContent-Length: {len(ULAW)}\r\n\r\n"
            )
            writer.write(head.encode() + ULAW[:BROKEN_AT])
            await writer.drain()
            offset = None
            while offset != str(BROKEN_AT):
                answer = await self.app.ask("HEAD", f"/v1/ingest/{TENANT}/{key}", Role.RECORDER)
                offset = answer.headers.get("Upload-Offset")
                await asyncio.sleep(0.01)
            writer.close()

    async def erased(self) -> None:
        """Have a recording erased that nothing keeps, so that there is a certificate."""
        recording = await self.app.upload("call-0009", ULAW[:8_000], media="audio/basic")
        body = {"basis": "art17", "case_reference": "DSR-2026-18", "recordings": [recording]}
        asked = (await self.app.ask("POST", "/v1/erasures", Role.COMPLIANCE, body=body)).json
        approval = {"shown": asked["shown"]}
        await self.app.ask("POST", f"/v1/erasures/{asked['id']}/approve", Role.DPO, body=approval)
        await self.app.certified()
        self.heard((await self.app.ask("GET", "/v1/certificates")).body.decode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "call.ulaw").write_bytes(ULAW)
    (tmp_path / "metadata.xml").write_bytes(METADATA)
    return tmp_path


def wav(folder: Path) -> None:
    """Put ffmpeg and a second of audio in its place, or be skipped."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    exe = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    (folder / "bin" / "ffmpeg").symlink_to(exe)
    samples = decode(Codec.PCMU, ULAW[:8_000])
    (folder / "call.wav").write_bytes(wav_header(rate=8000, channels=1, data_bytes=len(samples)) + samples)


async def test_docs_api_runs_as_it_is_printed(app: App, folder: Path) -> None:
    wav(folder)
    reader = Reader(app=app, folder=folder)
    prelude, *rest = [each for each in blocks(ROOT / "docs" / "api.md") if each.language in SHELL]
    given = reader.told(prelude.text, prelude.heading)
    settings = {"safeguarding_webhook": "https://127.0.0.1:9/flags"}
    assert (await app.ask("PUT", f"/v1/tenants/{TENANT}", Role.OPERATOR, body=settings)).status == 200
    async with reader.live("call-0004"):
        for block in rest:
            if "Upload-Offset: 160000" in block.text:
                await reader.broken("call-0002")
            if block.heading == "Certificates":
                await reader.erased()
            reader.answered(block, await reader.runs(block, given))
    assert {block.heading for block in rest} == set(SPEAKERS), "every section has been run"
