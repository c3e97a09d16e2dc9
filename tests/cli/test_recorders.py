"""What `callvault recorders` prints can be pasted: it parses as what it is, and nothing is left to fill in."""

import ast
import base64
import configparser
import json
import re
import shutil
import subprocess
import tomllib
import xml.etree.ElementTree as ET
from importlib import resources

import pytest
from yarl import URL

from cli import output
from cli.main import main
from cli.setups import RECORDERS, Place
from tests.helpers import recorders_page
from tests.helpers.answers import TENANT, TOKEN_ROW
from tests.helpers.stub import answer, problem

ID, SECRET = "0193" + "a" * 28, "Ab_-" + "x" * 39
TOKEN = f"cv_{ID}_{SECRET}"
PLACE = Place(URL("https://vault.example.org:8443"), "northfield-college", TOKEN)
BARE = Place(URL("https://vault.example.org"), "northfield-college")
FILES = [(name, file) for name, recorder in RECORDERS.items() for file in recorder.files(PLACE)]
EACH = pytest.mark.parametrize(("name", "file"), FILES, ids=[f"{name} {file.path[:30]}" for name, file in FILES])


def ini(text):
    parser = configparser.RawConfigParser(strict=True)
    parser.read_string(text)
    (section,) = parser.sections()
    return dict(parser[section])


def only(name, place=PLACE):
    (file,) = RECORDERS[name].files(place)
    return file.content


def test_every_recorder_has_a_file_and_every_file_a_recorder():
    files = resources.files("cli").joinpath("setups").iterdir()
    assert {each.name for each in files if each.name.endswith(".toml")} == {f"{name}.toml" for name in RECORDERS}


@EACH
def test_nothing_is_left_to_fill_in_once_the_token_is_known(name, file):
    for placeholder in ("$CALLVAULT_TOKEN_", "TODO", "REPLACE", "example.com", "<your", "xxxx-"):
        assert placeholder not in file.content.replace("STRREPLACE(", "")  # a function of Asterisk
    if "CALLVAULT_TOKEN" in file.content:
        assert f"export CALLVAULT_TOKEN='{TOKEN}'" in file.content
    assert "None" not in file.content
    assert file.content.endswith("\n")


def as_the_page_has_it(name, file):
    """Return the text that stands for `file` where nobody has filled in a token."""
    return next(each.content for each in RECORDERS[name].files(BARE) if each.path == file.path)


@EACH
def test_every_text_parses_as_what_it_is_with_a_token_and_without(name, file, tmp_path):
    parses(file, file.content, tmp_path)
    parses(file, as_the_page_has_it(name, file), tmp_path)


def parses(file, text, tmp_path):
    if text.startswith("#!"):
        subprocess.run(["bash", "-n"], input=text.encode(), check=True)
    elif text.startswith(("<?xml", "<include>")):
        ET.fromstring(text)
    elif text.startswith(("{", "[{", "[\n")):
        json.loads(text)
    elif file.path.startswith("config.toml"):
        tomllib.loads(text)
    elif file.path.endswith(".py"):
        ast.parse(text)
    elif file.path.endswith(".mjs"):
        node = shutil.which("node")
        if node is None:
            pytest.skip("node is not installed")
        script = tmp_path / "upload.mjs"
        script.write_text(text)
        subprocess.run([node, "--check", str(script)], check=True)
    elif file.path.endswith("extensions.conf"):
        head, usage, *lines = text.splitlines()
        assert (head, usage[:40]) == ("[record-to-callvault]", "; same => n,Gosub(record-to-callvault,s,")
        assert lines[0].startswith("exten => s,1,")
        assert all(re.match(r"exten => \w+,1,| same => n(\(\w+\))?,", line) for line in lines)
        assert all(line.endswith(")") for line in lines)
        assert text.count("(") == text.count(")")
    elif file.path.endswith(".conf"):
        assert ini(text)
    else:
        assert all(re.fullmatch(r"[A-Z][A-Za-z ]+: \S.*", line) for line in text.splitlines())


@EACH
def test_the_token_is_in_no_repr(name, file):
    assert SECRET not in repr(file) + repr(PLACE)


def test_without_a_token_a_placeholder_says_where_it_goes():
    for recorder in RECORDERS.values():
        text = "".join(file.content for file in recorder.files(BARE))
        assert "CALLVAULT_TOKEN" in text, recorder.name
        assert "None" not in text


def test_addresses_follow_the_server():
    for name, recorder in RECORDERS.items():
        text = "".join(file.content for file in recorder.files(PLACE))
        assert "northfield-college" in text, name
        # AudioSocket is listened for on the vault's own machine.
        assert ("127.0.0.1:9019" if name == "asterisk-audiosocket" else "vault.example.org") in text, name
    assert json.loads(only("jambonz"))[0]["listen"]["url"] == (
        "wss://vault.example.org:8443/v1/ingest/northfield-college/ws"
    )
    assert "wss://vault.example.org:8443/v1/ingest/northfield-college/audiohook" in only("genesys")
    local = Place(URL("http://127.0.0.1:8080"), "a-college", TOKEN)
    assert "ws://127.0.0.1:8080/v1/ingest/a-college/ws" in only("twilio", local)
    below = Place(URL("https://example.org/vault"), "a-college", TOKEN)
    assert "https://example.org/vault/v1/ingest/a-college/" in only("curl", below)
    assert '--endpoint-url "https://example.org/vault/s3"' in only("aws", below)
    assert ini(only("rtpengine-s3", below))["s3-path"] == "/vault/s3/a-college"
    assert ini(only("rtpengine-s3"))["s3-path"] == "/s3/northfield-college"


def test_asterisk_is_told_whom_to_trust_where_it_speaks_tls():
    """It loads no authorities of its own, and then verifies no certificate: __ssl_setup in its main/tcptls.c."""
    secure = ini(RECORDERS["asterisk"].files(PLACE)[0].content)
    assert (secure["tls_enabled"], secure["ca_list_file"][:1]) == ("yes", "/")
    plain = ini(RECORDERS["asterisk"].files(Place(URL("http://127.0.0.1:8080"), "a-college", TOKEN))[0].content)
    assert (plain["tls_enabled"], "ca_list_file" in plain) == ("no", False)


def test_asterisk_is_told_whom_it_trusts_where_there_is_a_certificate():
    for place, encrypted in ((PLACE, True), (Place(URL("http://127.0.0.1:8080"), "a-college", TOKEN), False)):
        client = ini(RECORDERS["asterisk"].files(place)[0].content)
        assert client["tls_enabled"] == ("yes" if encrypted else "no")
        assert ("ca_list_file" in client) is encrypted


def test_an_s3_key_pair_is_the_two_halves_of_a_token():
    conf = ini(RECORDERS["rclone"].files(PLACE)[0].content)
    assert (conf["access_key_id"], conf["secret_access_key"]) == (f"tok_{ID}", SECRET)
    account = json.loads(only("jambonz-s3"))["bucket_credential"]
    assert (account["access_key_id"], account["secret_access_key"]) == (f"tok_{ID}", SECRET)
    halves = re.search(r"export AWS_ACCESS_KEY_ID=.*\nexport AWS_SECRET_ACCESS_KEY=.*\n", only("aws"))[0]
    script = f"CALLVAULT_TOKEN='{TOKEN}'\n{halves}echo $AWS_ACCESS_KEY_ID $AWS_SECRET_ACCESS_KEY"
    said = subprocess.run(["bash", "-c", script], capture_output=True, check=True, text=True).stdout
    assert said.split() == [f"tok_{ID}", SECRET]


def test_genesys_gets_the_secrets_text_in_base64():
    secret = re.search(r"Client Secret: (\S+)", only("genesys"))[1]
    assert base64.b64decode(secret, validate=True) == SECRET.encode()


def test_the_ncco_names_the_call_and_stays_within_what_vonage_allows():
    named = {}
    exec(only("vonage"), named)
    call = {"uuid": "63f61863-4a51-4f6b-86e1-46edebcf9356", "from": "+441632960001", "to": "+441632960100"}
    (action,) = named["ncco"](call)
    headers = action["endpoint"][0]["headers"]
    assert headers["call_uuid"] == call["uuid"]
    assert headers["token"] == TOKEN
    assert len(json.dumps(headers)) <= 512


def test_one_configuration_is_alone_on_standard_output(stub, capsys):
    words = "recorders show twilio --tenant a-college --server https://vault.example.org"
    assert main(words.split()) == 0
    shown = capsys.readouterr()
    ET.fromstring(shown.out)
    assert "callvault tokens issue --tenant a-college" in shown.err
    assert stub.asked == []


def test_an_issued_token_is_filled_in_and_on_standard_output_alone(stub, capsys):
    stub.on("POST", "/v1/tokens", answer({**TOKEN_ROW, "token": TOKEN}))
    assert main(["recorders", "show", "livekit", "--tenant", "a-college", "--issue", "nightly"]) == 0
    assert stub.asked[0].body == {"name": "nightly", "role": "recorder", "tenant": "a-college"}
    shown = capsys.readouterr()
    assert SECRET in shown.out
    assert SECRET not in shown.err
    assert "tokens issue" not in shown.err


def test_json_names_the_files(stub, capsys, monkeypatch):
    monkeypatch.setenv("CALLVAULT_RECORDER_TOKEN", TOKEN)
    stub.on("GET", "/v1/tenants/a-college", answer(TENANT))
    assert main(["recorders", "show", "asterisk", "--tenant", "a-college", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown.keys() == {"name", "title", "source", "files", "notes"}
    assert [file["path"] for file in shown["files"]] == [
        "/etc/asterisk/websocket_client.conf",
        "/etc/asterisk/extensions.conf",
    ]
    assert f"password = {TOKEN}" in shown["files"][0]["content"]
    assert [(each.method, each.path) for each in stub.asked] == [("GET", "/v1/tenants/a-college")]


def test_a_tenant_that_there_is_not_is_said_to_be_none(stub, capsys, monkeypatch):
    show = ["recorders", "show", "curl", "--tenant", "nosuch"]
    stub.on("GET", "/v1/tenants/nosuch", problem("not_found", 404, "there is no such thing, or not for this token"))
    assert main(show) == 4
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "there is no tenant nosuch" in printed.err
    assert "callvault tenants list" in printed.err
    stub.on("GET", "/v1/tenants/nosuch", problem("forbidden", 403, "a recorder may not"))
    assert main(show) == 0
    assert "it was not checked whether tenant nosuch exists: a recorder may not" in capsys.readouterr().err
    monkeypatch.delenv("CALLVAULT_TOKEN")
    assert main(show) == 0
    assert "without a token it was not checked whether tenant nosuch exists" in capsys.readouterr().err


def test_every_recorder_is_listed(capsys):
    assert main(["recorders", "list", "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)["recorders"]] == list(RECORDERS)
    assert all(each.source.startswith("https://") for each in RECORDERS.values())


def test_no_name_of_a_recorder_is_broken_in_80_columns(capsys, monkeypatch):
    monkeypatch.setattr(output, "_PLAIN_WIDTH", 80)
    assert main(["recorders", "list"]) == 0
    shown = capsys.readouterr().out
    assert set(RECORDERS) <= {line.split(" ")[0] for line in shown.splitlines()}
    assert max(len(line) for line in shown.splitlines()) <= 80


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("recorders show fax --tenant a-college", 4),
        ("recorders show curl --tenant A_College", 2),
        ("recorders show curl --tenant a-college --address ftp://x", 7),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_asked(stub, words, code):
    assert main(words.split()) == code
    assert stub.asked == []


def test_what_is_no_token_is_refused_without_repeating_it_and_before_another_is_issued(stub, capsys, monkeypatch):
    monkeypatch.setenv("CALLVAULT_RECORDER_TOKEN", f"Bearer {TOKEN}")
    for more in ([], ["--issue", "x"]):
        assert main(["recorders", "show", "curl", "--tenant", "a-college", *more]) == 2
    assert SECRET not in "".join(capsys.readouterr())
    assert stub.asked == []


def test_the_page_is_what_the_templates_give():
    assert recorders_page.main(["--check"]) == 0
    strays = {path.stem for path in recorders_page.OUTPUTS.glob("*.txt")} - RECORDERS.keys()
    assert not strays
