"""docs/architecture.md: its pictures name the modules that a piece of audio, a hold and a sweep really pass."""

import asyncio
import importlib.util
import json
import re
import sys
import threading
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.main import main
from tests.helpers.app import app, furnished
from tests.helpers.recorder import durable_bytes, until
from vault.model import Role

__all__ = ("app", "furnished")

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
TREES = tuple(f"{ROOT / name}/" for name in ("vault", "cli"))
SVG = "{http://www.w3.org/2000/svg}"
PIECES = 5


class Passed:
    """The modules that ran, and which one called which; None called what a task, a thread or the loop began with."""

    def __init__(self):
        self.modules = set()
        self.calls = set()

    def note(self, frame):
        module, caller = module_of(frame), frame.f_back
        while caller is not None and module_of(caller) is None:
            caller = caller.f_back
        self.modules.add(module)
        self.calls.add((None if caller is None else module_of(caller), module))


NAMES = {}


def module_of(frame):
    file = frame.f_code.co_filename
    if file not in NAMES:
        inside = file.startswith(TREES)
        NAMES[file] = ".".join(Path(file).relative_to(ROOT).with_suffix("").parts) if inside else None
    return NAMES[file]


@pytest.fixture
def following():
    """Follow every thread that begins in the test; it comes before `app`, whose threads are of those."""
    listeners = []

    def heard(frame, what, _):
        if what == "call" and listeners and module_of(frame) is not None:
            listeners[-1].note(frame)

    @contextmanager
    def follow():
        listeners.append(Passed())
        try:
            yield listeners[-1]
        finally:
            listeners.pop()

    before = sys.getprofile()
    threading.setprofile(heard)
    sys.setprofile(heard)
    yield follow
    sys.setprofile(before)
    threading.setprofile(None)


def picture(name):
    """Return what a picture shows: (module, the one that it hangs from, how), from above to below."""
    tree = ET.parse(ROOT / "docs" / "journeys" / f"{name}.svg")
    found = []
    for box in tree.iter(f"{SVG}g"):
        module = box.get("data-module")
        assert box.find(f"{SVG}text").text == module
        assert (box.find(f"{SVG}path") is None) is (box.get("data-from") is None)
        found.append((module, box.get("data-from"), box.get("data-by")))
    assert len({module for module, *_ in found}) == len(found)
    return found


def check(name, passed):
    for module, above, how in picture(name):
        assert module in passed.modules, f"{name}: nothing of {module} ran"
        if how == "call":
            assert (above, module) in passed.calls, f"{name}: {above} no longer calls {module}"
        elif how == "later":
            assert (None, module) in passed.calls, f"{name}: {module} is called now, and begins nothing by itself"


def test_every_picture_names_modules_that_exist():
    shown = re.findall(r"\]\(journeys/(\w+)\.svg\)", PAGE.read_text())
    assert sorted(shown) == sorted(path.stem for path in (ROOT / "docs" / "journeys").iterdir())
    named = {module for name in shown for module, *_ in picture(name)}
    named |= set(re.findall(r"`((?:vault|cli)\.[\w.]+)`", PAGE.read_text()))
    assert not [name for name in named if importlib.util.find_spec(name) is None]


async def test_a_piece_of_audio_passes_the_modules_of_its_picture_and_no_others(following, app):
    headers = {"Authorization": f"Bearer {app.token(Role.RECORDER)}"}
    shown = {module for module, *_ in picture("audio")}
    assert len(shown) <= 12, "a piece of audio passes more modules than it did"
    way = "/v1/ingest/northfield/ws?call_key=one"
    async with app.client.ws_connect(way, headers=headers, protocols=("audio.jambonz.org",)) as socket:
        await socket.send_str(json.dumps({"sampleRate": 8000, "mixType": "mono", "callSid": "one"}))
        await socket.send_bytes(bytes(320))
        await until(lambda: durable_bytes(app.vault, "one") == 320)
        pieces = []
        for _ in range(PIECES):
            with following() as passed:
                await socket.send_bytes(bytes(320))
                await until(lambda seen=passed.modules: shown <= seen)
            pieces.append(passed)
    # What the vault does beside a piece, at its own times, is not in all of them.
    assert set.intersection(*(each.modules for each in pieces)) == shown
    for each in pieces:
        check("audio", each)


async def test_a_hold_passes_the_modules_of_its_picture(following, app, monkeypatch):
    recording = await app.upload("held", bytes(8_000))
    monkeypatch.setenv("CALLVAULT_SERVER", app.url)
    monkeypatch.setenv("CALLVAULT_TOKEN", app.token(Role.COMPLIANCE))
    why = ("--kind=legal", "--matter=SMITH-2026", "--reason=claim", "--authority=counsel", "--owner=legal")
    with following() as passed:
        assert await asyncio.to_thread(main, ["holds", "place", recording, *why, "--json"]) == 0
        await until(lambda: {module for module, *_ in picture("hold")} <= passed.modules)
    check("hold", passed)


async def test_a_sweep_passes_the_modules_of_its_picture(following, app):
    await app.upload("due", bytes(8_000))
    # A cohort in which nothing is held goes as a whole; here the rule is asked.
    assert (await app.hold(await app.upload("held", bytes(8_000)))).status == 201
    app.clock.advance(days=12)
    with following() as passed:
        assert (await app.sweep())["shredded"] == 1
        assert (await app.certified())["objects_deleted_for"] == 1
    check("sweep", passed)
