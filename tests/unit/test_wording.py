"""Messages about what somebody wrote are in words: none of a library's, and none of Python's."""

import json
import re
import socket
import ssl
import types
from pathlib import Path
from typing import Annotated, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from cli.main import main
from vault.config import Config, load_config, parse_config
from vault.errors import ConfigError, Invalid, kind_in_words, reason
from vault.server.context import parse_model
from vault.server.routes import OPERATIONS
from vault.wording import first_misfit

FOREIGN = re.compile(
    r"Input should|String should|Value error|Extra inputs|Field required|validation|pydantic|Unable|unable to parse"
    r"|NoneType|ValueError|TypeError|\b(?:str|int|dict|bool|tuple|float|bytes)\b|[a-z]\w*(?:Error|Settings|Section)\b"
    r"|function-|IPv4Network|ipv4network|<class|codec can't|tomllib|literal for"
)
WRONG = [None, 5, -1, 10**30, 1.5, "", "x", True, [], [None], ["x"], {}, {"x": 1}]


def models(annotation):
    """Yield the sections that an annotation can hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in {Union, types.UnionType, Annotated}:
        for each in get_args(annotation):
            yield from models(each)


def places(model, path=()):
    for name, field in model.model_fields.items():
        if field.exclude:
            continue
        yield (*path, name)
        for inner in models(field.annotation):
            yield from places(inner, (*path, name))


def document(path, value):
    return document(path[:-1], {path[-1]: value}) if path else value


def test_every_bad_setting_is_named_in_words():
    said = []
    for path in places(Config):
        for value in [*WRONG, {"surprise": 1}]:
            try:
                parse_config(document(path, value), base=Path("/etc/callvault"))
            except ConfigError as error:
                said.append(error.message)
    assert len(said) > 500
    for message in said:
        assert not FOREIGN.search(message), message
        assert re.fullmatch(r"[a-z0-9_.]+|the file", message.partition(": ")[0]), message


def test_what_no_rule_of_ours_speaks_of_is_still_said_in_words():
    class Unforeseen(BaseModel):
        pattern: re.Pattern[str]

    with pytest.raises(ValidationError) as refused:
        Unforeseen.model_validate({"pattern": "("})
    assert first_misfit(refused.value) == ("pattern", "is not a valid value")


@pytest.mark.parametrize(
    "text", [b"\xff", b"[server", b"a = 1\na = 2", b"[server]\nport = 'x'\n", b"port = 00001\n", b"x = \x00"]
)
def test_a_file_that_is_no_configuration_is_named_in_words(tmp_path, text):
    (tmp_path / "config.toml").write_bytes(text)
    with pytest.raises(ConfigError) as refused:
        load_config(tmp_path / "config.toml", environment={})
    assert not FOREIGN.search(refused.value.message)


def test_every_bad_body_of_the_api_is_named_in_words():
    said = []
    bodies = {each.body for each in OPERATIONS if each.body is not None}
    for kind in bodies:
        for value in WRONG:
            whole = [{name: value} for name in kind.model_fields] + [dict.fromkeys(kind.model_fields, value), value]
            for body in whole:
                try:
                    parse_model(json.dumps(body).encode(), kind)
                except Invalid as error:
                    said.append(error.message)
    assert len(said) > 300
    assert [message for message in said if FOREIGN.search(message)] == []


def test_a_mistyped_option_is_named_in_words(capsys):
    for words in (
        ["recordings", "list", "--limit", "many"],
        ["recordings", "list", "--limit", "0"],
        ["recordings", "list", "--state", "vanished"],
        ["tokens", "issue", "--role", "king", "--name", "x"],
        ["serve", "--workers", "65"],
        ["serve", "--workers", "1.5"],
        ["serve", "--config"],
        ["audit", "export", "--after", "-1"],
    ):
        assert main(words) == 2
        shown = capsys.readouterr().err
        assert not FOREIGN.search(shown), shown


class PinIncorrect(Exception):
    pass


class ServerDisconnectedError(Exception):
    pass


def test_why_a_library_failed_is_said_without_the_name_of_a_class():
    assert reason(ConnectionRefusedError(111, "Connection refused")) == "Connection refused"
    assert reason(TimeoutError()) == "it took too long"
    assert reason(PinIncorrect()) == "pin incorrect"
    assert reason(ServerDisconnectedError("x")) == "server disconnected"
    assert reason(OSError()) == "the system refused"
    bound = OSError(98, "error while attempting to bind on address ('127.0.0.1', 80): address already in use")
    assert reason(bound) == "Address already in use"
    assert reason(socket.gaierror(-2, "Name or service not known")) == "Name or service not known"
    with pytest.raises(ssl.SSLError) as refused:
        ssl.create_default_context(cadata="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")
    assert "_ssl.c" in str(refused.value)
    assert not re.search(r"_ssl|\[", reason(refused.value))
    assert [kind_in_words(kind) for kind in (str, int, bytes, type(None), dict, Path)] == [
        "text", "a whole number", "bytes", "null", "an object", "something else"
    ]  # fmt: skip


def test_no_message_has_the_name_of_a_class():
    named = re.compile(r'raise .*\{[^}]*__name__|[A-Z]\w+\(.*\{[^}]*__name__|^\s+f?".*\{[^}]*__name__')
    root = Path(__file__).parents[2]
    found = [
        f"{path.relative_to(root)}: {line.strip()}"
        for package in ("vault", "cli")
        for path in (root / package).rglob("*.py")
        for line in path.read_text().splitlines()
        if named.search(line) and "AssertionError" not in line
    ]
    assert found == []
