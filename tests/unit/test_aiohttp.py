"""What is used of aiohttp below its public surface: in two modules, of names that mean what they meant there."""

import ast
import asyncio
import hashlib
import inspect
import re
from importlib import import_module
from pathlib import Path

import aiohttp
import pytest
from aiohttp import StreamReader, web
from aiohttp._websocket import reader_py
from aiohttp.base_protocol import BaseProtocol

from vault.server.connections.http_protocol import arrived

ROOT = Path(__file__).parents[2]
HTTP = "vault.server.connections.http_protocol"
SOCKET = "vault.server.ingest.websocket"
USED = {
    HTTP: {
        "_buffer_paused",
        "_exception",
        "_max_msg_queue_size",
        "_messages",
        "_msg_queue_resume_size",
        "_pause_transport_reading",
        "_reading_paused",
        "_request_count",
        "_request_in_progress",
        "_resume_transport_reading",
        "_upgraded",
    },
    SOCKET: {"_buffer", "_compress", "_parser", "_post_start", "_reader", "_websocket", "_writer", "_ws_protocol"},
}
RELIED_ON = {
    "what pauses and resumes the reading of a connection": (BaseProtocol, "b8cbe831e85f09b9"),
    "which requests a connection has had and answers": (web.RequestHandler, "3960a24b6f6b63e0"),
    "what hides the bytes that came before a connection broke": (StreamReader, "64f76413d16e4765"),
    "what begins a WebSocket": (web.WebSocketResponse._post_start, "5537cb3f2ecae6ed"),
    "the queue between a WebSocket's parser and its reader": (reader_py.WebSocketDataQueue, "526af2531df720ee"),
    "how a parser of frames is made": (reader_py.WebSocketReader.__init__, "ea518c1cea91584e"),
}


def private(name):
    return name.startswith("_") and not name.startswith("__")


def below(path):
    """Return the private names of aiohttp's that a module uses: on its own objects, or by inheriting them."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] == "aiohttp":
                found |= {part for part in (*module.split("."), *(each.name for each in node.names)) if private(part)}
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=attr) if private(attr) and attr in PRIVATE_OF_BODIES:
                found.add(attr)
            case ast.ClassDef():
                found |= inherited(import_module(module_of(path)), node)
    return found


PRIVATE_OF_BODIES = {name for kind in (StreamReader, web.Request, web.Response) for name in dir(kind) if private(name)}


def inherited(module, node):
    kind = getattr(module, node.name, None)
    if not isinstance(kind, type):
        return set()
    bases = [each for each in kind.__mro__ if each.__module__.split(".")[0] == "aiohttp"]
    if not bases:
        return set()
    theirs = set().union(*(dir(each) for each in bases), *(re.findall(r"self\.(_\w+)", source(each)) for each in bases))
    mine = {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute) and own(each.value)}
    mine |= {each.name for each in ast.walk(node) if isinstance(each, ast.FunctionDef)}
    return {name for name in theirs & mine if private(name)}


def own(value):
    return ast.unparse(value) in {"self", "super()"}


def source(kind):
    """Return the source of a class; of one that is compiled, that of its twin in Python."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return inspect.getsource(getattr(reader_py, kind.__name__))


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_what_is_below_the_public_surface_of_aiohttp_is_used_in_two_modules_alone():
    found = {}
    for path in sorted([*(ROOT / "vault").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]):
        if re.search(r"^\s*(?:import|from) aiohttp", path.read_text(), re.MULTILINE) and (names := below(path)):
            found[module_of(path)] = names
    assert found == USED


@pytest.mark.parametrize("what", RELIED_ON)
def test_a_change_of_what_is_relied_on_below_the_surface_is_noticed(what):
    relied_on, known = RELIED_ON[what]
    digest = hashlib.sha256(inspect.getsource(relied_on).encode()).hexdigest()[:16]
    assert digest == known, f"aiohttp {aiohttp.__version__} changed {what}: read {HTTP} and {SOCKET} against it"


async def test_what_had_arrived_of_a_body_is_given_out_after_its_connection_broke():
    body = StreamReader(BaseProtocol(asyncio.get_running_loop()), 1 << 16, loop=asyncio.get_running_loop())
    body.feed_data(b"the end of a call")
    body.feed_eof()
    body.set_exception(ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        await body.readany()
    assert arrived(body) == b"the end of a call"
