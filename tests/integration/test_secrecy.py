"""A full life of a vault leaves no audio, key, token or phone number anywhere but where it belongs."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import json
import logging
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote, urlsplit

import pytest

from tests.helpers import approvals
from tests.helpers.app import PCMU, PURPOSE, SETTINGS, App, running, sound
from tests.helpers.crashing import memory_directory
from tests.helpers.phone_numbers import NUMBERS, number_in
from vault.crypto.derive import Purpose, subkey
from vault.keystore.keyring import Keyring
from vault.keystore.root.file import FileRootKeys
from vault.model import Role
from vault.storage.journal.file import Disk
from vault.telemetry import configure_logging

BLOCK = 16


@dataclass(slots=True)
class Needles:
    """What must not be found, in every form in which it might be."""

    audio: set[bytes] = field(default_factory=set)
    keys: dict[str, bytes] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)

    def add_audio(self, audio: bytes) -> bytes:
        """Note every aligned block: any run of 32 bytes of the audio contains one of them."""
        self.audio |= {audio[i : i + BLOCK] for i in range(0, len(audio) - BLOCK + 1, BLOCK)}
        return audio


def renderings(raw: bytes) -> Iterator[bytes]:
    """Return the ways in which bytes are written: as they are, in hex, in base64 at any phase, as Python shows them."""
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    yield repr(raw)[2:-1].encode()
    for phase in range(3):
        inner = base64.b64encode(b"\0" * phase + raw)[4 if phase else 0 : -4]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))


def audio_in(hay: bytes, needles: Needles) -> bool:
    hay = re.sub(rb"\0{64,}", b"\0" * BLOCK, hay)
    return any(hay[i : i + BLOCK] in needles.audio for i in range(len(hay) - BLOCK + 1))


def printed_audio_in(hay: bytes, needles: Needles) -> bool:
    """Look for audio as text would show it: hex, base64 or escapes; a few blocks of each recording stand for all."""
    return any(form in hay for block in sorted(needles.audio)[::50] for form in list(renderings(block))[1:])


def key_in(hay: bytes, needles: Needles) -> str | None:
    return next((name for name, key in needles.keys.items() for form in renderings(key) if form in hay), None)


def secret_in(hay: bytes, needles: Needles) -> bool:
    pieces = [piece for secret in needles.secrets for piece in (secret[:12], secret[12:24], secret[-12:])]
    raw = [base64.urlsafe_b64decode(secret + "=") for secret in needles.secrets]
    return any(piece.encode() in hay for piece in pieces) or any(form in hay for r in raw for form in renderings(r))


@dataclass(slots=True)
class Life:
    """Everything a vault left behind, by where it was found."""

    needles: Needles = field(default_factory=Needles)
    files: dict[str, bytes] = field(default_factory=dict)
    journal: list[bytes] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)
    issuer: bytes = b""

    def snapshot(self, when: str, base: Path) -> None:
        for path in sorted(base.rglob("*")):
            if path.is_file():
                self.files[f"{when}: {path.relative_to(base)}"] = path.read_bytes()

    @property
    def all(self) -> dict[str, bytes]:
        return {**self.files, "everything the journal ever wrote": b"".join(self.journal), **self.texts}


# -- the life -----------------------------------------------------------------------------------------------------


def watch(patch: pytest.MonkeyPatch, life: Life) -> None:
    """Note every data key and root secret, and every byte that goes to the journal."""
    derive, root, write = Keyring.derive, FileRootKeys._root, Disk.write

    def watched_derive(self, coordinate):
        key = derive(self, coordinate)
        place = f"{coordinate.cohort.tenant} {coordinate.cohort.part} {coordinate.leaf}"
        life.needles.keys[f"data key {place}"] = key.material
        for purpose in Purpose:
            life.needles.keys[f"{purpose} {place}"] = subkey(key, purpose)
        return key

    def watched_root(self, store, version):
        secret = root(self, store, version)
        life.needles.keys[f"root {version}"] = secret
        return secret

    def watched_write(self, fd, data, position):
        life.journal.append(bytes(data))
        write(self, fd, data, position)

    patch.setattr(Keyring, "derive", watched_derive)
    patch.setattr(FileRootKeys, "_root", watched_root)
    patch.setattr(Disk, "write", watched_write)


def note_keyring(app: App, needles: Needles) -> None:
    """Note the epoch secret, the page keys and every seed that the keyring holds now."""
    stored = app.vault.keyring._engine._stored
    needles.keys[f"epoch secret {stored.state.epoch}"] = stored.secret.material
    for ref in stored.refs:
        needles.keys[f"page key {ref.name}"] = ref.key
    for page in stored.state.pages.values():
        for cover in page.cohorts.values():
            for node, seed in cover.nodes.items():
                needles.keys[f"seed {page.tenant} {node}"] = seed


def reprs(root: object) -> bytes:
    """Return the repr of every object of the vault that can be reached from `root`."""
    seen: set[int] = set()
    queue, shown = deque([root]), []
    while queue:
        each = queue.popleft()
        if id(each) in seen or isinstance(each, type):
            continue
        seen.add(id(each))
        ours = type(each).__module__.startswith("vault.")
        if ours:
            shown.append(f"{type(each).__name__} {each!r} {each!s}")
        if ours or isinstance(each, dict | list | tuple | set | frozenset | deque | Mapping | MappingProxyType):
            queue.extend(gc.get_referents(each))
    assert len(shown) > 30
    return "\n".join(shown).encode()


async def misplace(app: App, text: str) -> None:
    """Send `text` in every place where somebody in a hurry might paste it; none of them is a success."""
    quoted = quote(text, safe="")
    for who in (Role.COMPLIANCE, Role.RECORDER, Role.OPERATOR, None):
        for path in ("recordings", "holds", "certificates", "tenants"):
            await app.ask("GET", f"/v1/{path}/{quoted}", who)
        await app.ask("GET", f"/v1/recordings/{quoted}/audio", who, headers={"Purpose": "quality"})
        await app.ask("DELETE", f"/v1/tokens/{quoted}", who)
        await app.ask("POST", f"/v1/holds/{quoted}/release", who, body={"reason": "x"})
        await app.ask("POST", f"/v1/sweeps/overrides/{quoted}/approve", who)
        await app.ask("HEAD", f"/v1/ingest/{quoted}/call", who)
        for place in ("recordings", "certificates", "holds", "audit"):
            await app.ask("GET", f"/v1/{place}", who, headers={"Cookie": f"token={quoted}", "X-Token": text})
            for name in ("tenant", "before", "recording", "state", "limit", "after", "caller", "called", "tag"):
                await app.ask("GET", f"/v1/{place}?{name}={quoted}", who)
        await app.ask("POST", "/v1/recordings/search", who, body={"caller": text, "limit": text})
        await app.ask("POST", f"/v1/erasures/{quoted}/approve", who)
        wrong = {"basis": text, "case_reference": "x", "recordings": [text], "caller": text}
        await app.ask("POST", "/v1/erasures", who, body=wrong)
        await app.ask("POST", "/v1/erasures", who, body={**wrong, "basis": "art17", "recordings": []})
    body = app.hold_body("rec_" + "0" * 32)
    for name in body:
        await app.ask("POST", "/v1/holds", body={**body, name: [text] if name == "recordings" else text})
    for name in ("name", "role", "tenant"):
        wrong = {"name": "x", "role": "agent", "tenant": "northfield", name: text}
        if name != "name":
            await app.ask("POST", "/v1/tokens", Role.OPERATOR, body=wrong)
    await app.ask("PUT", "/v1/tenants/northfield", Role.OPERATOR, body={"retention": text})
    await app.ask(
        "POST", "/v1/tenants", Role.OPERATOR, body={"id": text, "name": "n", "controller": "c", "contact": "c"}
    )
    await app.ask("POST", "/v1/tenants", Role.OPERATOR, data=text)
    for name in ("Content-Type", "Upload-Offset", "Call-Started", "Call-Direction", "Range", "Purpose", "Expect"):
        headers = {"Content-Type": PCMU, name: text}
        await app.ask("PUT", "/v1/ingest/northfield/odd", Role.RECORDER, data=b"", headers=headers)
    for scheme in ("Token", "Basic", "Digest", ""):
        await app.ask("GET", "/v1/recordings", None, headers={"Authorization": f"{scheme} {text}".strip()})
    await app.ask("GET", "/v1/recordings", text[:-1])


async def malformed(app: App, text: str) -> None:
    """Send what is not HTTP, with `text` in it. Its sender alone is told what was wrong; the log must not repeat it."""
    host = urlsplit(app.url)
    for request in (
        f"GET /{text} HTTP/9.9\r\n\r\n",
        f"GET / HTTP/1.1\r\nAuthorization Bearer {text}\r\n\r\n",
        f"{text}\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(host.hostname, host.port)
        writer.write(request.encode())
        assert await reader.read()
        writer.close()
        await writer.wait_closed()


async def live(base: Path, life: Life) -> None:
    needles = life.needles
    # The call under way waits for everything that is misplaced meanwhile.
    async with running(base, server={**SETTINGS["server"], "idle_timeout": "120s"}) as app:
        for token in app.tokens.values():
            needles.secrets.append(token.removeprefix("cv_").partition("_")[2])
        headers = {
            "Call-From": NUMBERS["caller"][0],
            "Call-To": NUMBERS["called"][0],
            "Call-Tags": NUMBERS["abroad"][0],
        }
        held = await app.upload(f"pbx~{NUMBERS['caller'][1]}", needles.add_audio(sound(100_000, 21)), headers=headers)
        headers = {"Call-From": NUMBERS["abroad"][0], "Call-To": NUMBERS["extension"][0]}
        due = await app.upload("due", needles.add_audio(sound(70_000, 22)), tenant="southgate", headers=headers)
        gate = asyncio.Event()
        audio = needles.add_audio(sound(60_000, 23))

        async def talk():
            yield audio[:40_000]
            await gate.wait()
            yield audio[40_000:]

        call = asyncio.create_task(app.upload("live", talk(), headers=headers))
        while (
            not (found := (await app.ask("GET", "/v1/recordings?state=open")).json["recordings"])
            or not found[0]["bytes"]
        ):
            await asyncio.sleep(0.005)
        life.snapshot("while a call runs", base)
        for recording, tenant in ((held, "northfield"), (due, "southgate"), (found[0]["id"], "northfield")):
            assert (await app.play(recording, tenant=tenant)).status == 200
            shown = await app.ask("GET", f"/v1/recordings/{recording}", tenant=tenant)
            assert number_in(repr(shown.json["call"]).encode()), "the recorder's numbers never got in"
        await app.hold(held)
        for where in ("?caller={}", "?called={}", "?tag={}"):
            for typed, _ in NUMBERS.values():
                found_by = await app.ask("GET", "/v1/recordings" + where.format(quote(typed)), headers=PURPOSE)
                assert found_by.status == 200
        found_by = await app.ask("GET", f"/v1/recordings?caller={quote(NUMBERS['caller'][0])}", headers=PURPOSE)
        assert [each["id"] for each in found_by.json["recordings"]] == [held]
        erasure = {"basis": "art17", "case_reference": "DSR-1", "caller": NUMBERS["caller"][0]}
        assert (await app.ask("POST", "/v1/erasures", body=erasure)).problem == "under_hold"
        waiting = await app.ask("POST", "/v1/erasures", body={**erasure, "queue": True})
        await approvals.approve(app, f"/v1/erasures/{waiting.json['id']}", Role.DPO)
        await app.ask("GET", f"/v1/recordings/{due}", Role.OPERATOR)
        assert number_in((await app.ask("GET", f"/v1/recordings/{due}", Role.OPERATOR)).body) is None
        note_keyring(app, needles)
        life.texts["repr while a call runs"] = reprs(app.vault)
        for text in (app.token(Role.COMPLIANCE), *(typed for typed, _ in NUMBERS.values())):
            await misplace(app, text)
        await malformed(app, app.token(Role.COMPLIANCE))
        gate.set()
        await call
        life.snapshot("before the sweep", base)
        app.clock.advance(days=12)
        assert (await app.sweep())["shredded"] == 2
        note_keyring(app, needles)
        assert (await app.play(due, tenant="southgate")).status == 410
        life.snapshot("after the sweep", base)
        life.texts["repr after the sweep"] = reprs(app.vault)
        life.texts["metrics"] = (await app.ask("GET", "/metrics", None)).body
        for page in range(0, 3000, 1000):
            audit = await app.ask("GET", f"/v1/audit?limit=1000&after={page}", Role.OPERATOR)
            life.texts[f"audit from {page}"] = audit.body
        life.texts["refusals"] = b"\n".join(app.refusals)
        life.issuer = app.config.issuer_path.read_bytes()
    life.snapshot("after the end", base)


# One worker lives the life.
pytestmark = pytest.mark.xdist_group("secrecy")


@pytest.fixture(scope="module")
def life() -> Life:
    lived = Life()
    logged = io.StringIO()
    loggers = [logging.getLogger(name) for name in (None, "vault", "cli")]
    before = [(each, each.level, each.handlers[:]) for each in loggers]
    configure_logging(level="DEBUG", stream=logged)
    try:
        with memory_directory() as base, pytest.MonkeyPatch.context() as patch:
            watch(patch, lived)
            asyncio.run(live(base, lived))
    finally:
        for each, level, handlers in before:
            each.setLevel(level)
            each.handlers[:] = handlers
    lived.texts["log at level DEBUG"] = logged.getvalue().encode()
    return lived


# -- the laws -----------------------------------------------------------------------------------------------------


def test_the_life_was_full(life):
    assert len(life.needles.audio) > 10_000
    assert len(life.needles.keys) > 40
    assert len(life.needles.secrets) == 13
    assert {"data", "epoch", "page", "seed", "root"} <= {name.partition(" ")[0] for name in life.needles.keys}
    names = " ".join(life.files)
    for each in ("catalog.db", "journal", "head", "pages", "#object", "root-keys", "issuer.pem"):
        assert each in names
    assert any(name.startswith("while a call runs: data/objects/") for name in life.files)
    assert len(b"".join(life.journal)) > 200_000
    assert life.texts["refusals"].count(b"urn:callvault:problem:") > 400
    assert b"keyring epoch destroyed" in life.texts["log at level DEBUG"]
    assert b"IngestSession" in life.texts["repr while a call runs"]
    assert b"callvault_ingest_bytes_total" in life.texts["metrics"]


def test_no_run_of_audio_is_on_disk_or_in_any_text(life):
    assert [place for place, hay in life.all.items() if audio_in(hay, life.needles)] == []
    assert [place for place, hay in life.texts.items() if printed_audio_in(hay, life.needles)] == []


def test_no_key_of_any_kind_is_on_disk_or_in_any_text(life):
    assert {place: key for place, hay in life.all.items() if (key := key_in(hay, life.needles))} == {}


def test_the_issuers_private_key_is_in_its_own_file_and_nowhere_else(life):
    body = b"".join(line for line in life.issuer.splitlines() if not line.startswith(b"-----"))
    seed = base64.b64decode(body)[-32:]
    found = {place for place, hay in life.all.items() if any(form in hay for form in (body, *renderings(seed)))}
    assert {place.partition(": ")[2] for place in found} == {"data/issuer.pem"}


def test_no_token_is_on_disk_or_in_any_text(life):
    assert [place for place, hay in life.all.items() if secret_in(hay, life.needles)] == []


def test_no_phone_number_is_on_disk_or_in_any_text(life):
    assert {place: name for place, hay in life.all.items() if (name := number_in(hay))} == {}


def test_at_debug_level_only_the_vault_itself_says_more(life):
    lines = [json.loads(line) for line in life.texts["log at level DEBUG"].splitlines()]
    assert {line["logger"].partition(".")[0] for line in lines if line["level"] == "debug"} <= {"vault", "cli"}


# -- the laws can be broken ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 1, 7, 40_011])
def test_the_searcher_finds_any_32_bytes_of_audio(life, start):
    planted = b"\0" * 100 + sound(100_000, 21)[start : start + 32] + b"\0" * 100
    assert audio_in(planted, life.needles)


def test_the_searcher_finds_printed_audio(life):
    block = min(life.needles.audio)
    for form in (block.hex(), repr(block), base64.b64encode(block + b"xxx").decode()):
        assert printed_audio_in(f"log {form} line".encode(), life.needles)


def test_the_searcher_finds_a_key_in_any_rendering(life):
    key = life.needles.keys["data key northfield audio 0"]
    for form in (
        key,
        key.hex().encode(),
        repr(key).encode(),
        *(base64.b64encode(b"ab"[:n] + key + b"x") for n in range(3)),
    ):
        assert key_in(b"before" + form + b"after", life.needles)
    assert key_in(base64.urlsafe_b64encode(key), life.needles)


def test_the_searcher_finds_a_token_and_half_of_one(life):
    secret = life.needles.secrets[3]
    assert secret_in(f"token cv_0_{secret} seen".encode(), life.needles)
    assert secret_in(f"token cv_0_{secret[:24]}".encode(), life.needles)


@pytest.mark.parametrize(
    "form", ["+442079460123", "020 7946 0123", "(020)-7946-0123", "0044.20.7946.0123", "2079460123"]
)
def test_the_searcher_finds_a_number_in_any_shape(form):
    assert number_in(f'{{"caller": "{form}"}}'.encode()) == "caller"
