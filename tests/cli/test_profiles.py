import io
import json
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from cli.main import main
from cli.tls import untrusted
from tests.cli.conftest import TOKEN
from tests.helpers.authorities import Authority
from tests.helpers.stub import StubServer, answer, running_stub
from vault.crypto.presented import read_presented

VAULT = "vlt_" + "1" * 32
OTHER = "vlt_" + "2" * 32
LIST = ["tokens", "list"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CALLVAULT_PROFILE", "CALLVAULT_CA_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return tmp_path / "config/callvault"


@pytest.fixture
def north(stub: StubServer) -> StubServer:
    stub.on("GET", "/healthz", answer({"status": "ok", "vault": VAULT, "trial": False}))
    stub.on("GET", "/v1/tokens", answer({"tokens": []}))
    return stub


def add(server: str, *more: str, name: str = "north") -> int:
    return main(["profile", "add", name, "--server", server, *more])


def kept(tmp_path: Path, mode: int = 0o600) -> Path:
    path = tmp_path / "asha.token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(mode)
    return path


def test_a_profile_has_address_vault_and_token_and_nobody_else_may_read_the_token(
    north: StubServer, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{TOKEN}\n"))
    assert add(north.url, "--token-file", "-", "--json") == 0
    assert "Authorization" not in north.asked[0].headers, "the vault was asked who it is with a token"
    said = json.loads(capsys.readouterr().out)
    assert (said["server"], said["vault"], said["chosen"]) == (north.url, VAULT, False)
    token = Path(said["token_file"])
    assert token.read_text().strip() == TOKEN
    assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert TOKEN not in (home / "profiles.toml").read_text()
    for words in (["list"], ["show", "north"], ["list", "--json"]):
        assert main(["profile", *words]) == 0
        shown = capsys.readouterr().out
        assert north.url in shown
        assert TOKEN not in shown
    monkeypatch.setenv("CALLVAULT_TOKEN", "cv_another")
    monkeypatch.setenv("CALLVAULT_SERVER", "http://127.0.0.1:1")
    monkeypatch.setenv("CALLVAULT_PROFILE", "north")
    assert main(LIST) == 0
    assert [each.headers.get("Authorization") for each in north.asked[-2:]] == [None, f"Bearer {TOKEN}"]
    assert main(["profile", "remove", "north"]) == 0
    assert not token.exists()
    assert main(LIST) == 4
    assert "there is no profile north" in capsys.readouterr().err


def test_a_token_is_never_sent_to_another_vault(
    north: StubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(north.url, "--token-file", str(kept(tmp_path))) == 0
    north.asked.clear()
    for said in ({"vault": OTHER}, {"vault": None}, {"status": "ok"}):
        north.on("GET", "/healthz", answer(said))
        assert main([*LIST, "--profile", "north"]) in {5, 7}
        assert "vault" in capsys.readouterr().err
    with running_stub() as elsewhere:
        elsewhere.on("GET", "/healthz", answer({"status": "ok", "vault": OTHER, "trial": False}))
        assert main([*LIST, "--profile", "north", "--server", elsewhere.url]) == 7
        shown = capsys.readouterr().err
        assert f"is the vault {OTHER}, and the profile is for {VAULT}; no token was sent" in shown
        assert "hint: " in shown
        asked = [*north.asked, *elsewhere.asked]
    assert [each.path for each in asked] == ["/healthz"] * 4
    assert not any("Authorization" in each.headers for each in asked)


def test_another_vault_than_the_expected_one_is_not_kept(
    north: StubServer, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(north.url, "--vault", OTHER) == 7
    assert not home.exists()
    assert add(north.url, "--vault", VAULT) == 0
    assert add(north.url) == 3, "a profile is not overwritten"
    assert "callvault profile remove north" in capsys.readouterr().err
    assert add(north.url, name="../north") == 2


def test_a_token_file_that_others_may_read_is_refused(
    north: StubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for mode in (0o640, 0o604, 0o644):
        path = kept(tmp_path, mode)
        assert add(north.url, "--token-file", str(path)) == 7
        assert main([*LIST, "--token-file", str(path)]) == 7
        shown = capsys.readouterr().err
        assert f"others may read the token file {path}" in shown
        assert f"chmod 600 {path}" in shown
        assert TOKEN not in shown
    assert not any("Authorization" in each.headers for each in north.asked)
    assert main([*LIST, "--token-file", str(kept(tmp_path))]) == 0


def test_a_token_on_the_command_line_is_refused_and_sent_nowhere(
    north: StubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*LIST, "--token", TOKEN]) == 2
    shown = capsys.readouterr().err
    assert "can be read by every user of this machine; nothing was sent" in shown
    assert TOKEN not in shown
    assert north.asked == []
    assert main([*LIST, "--help"]) == 0
    assert "--token " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("north = 5", "'north' is not a profile"),
        ("[north]\nserver = 'http://x'\nsecret = 'y'", "north.secret is not a setting of a profile"),
        ("[north]\nserver = 'http://x'", "north.vault is missing"),
        ("[north", "is not TOML"),
        ("[NORTH]\n", "'NORTH' is not a profile"),
    ],
)
def test_a_damaged_file_of_profiles_is_named_with_what_is_wrong_in_it(
    home: Path, capsys: pytest.CaptureFixture[str], text: str, named: str
) -> None:
    home.mkdir(parents=True)
    (home / "profiles.toml").write_text(text)
    assert main([*LIST, "--profile", "north"]) == 7
    shown = capsys.readouterr().err
    assert str(home / "profiles.toml") in shown
    assert named in shown


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_certificate_that_is_not_trusted_is_named_with_the_reason_and_the_remedy(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trusted = ["--ca-file", str(authority.file)]
    cases = [
        (authority.context("localhost"), [], ["authority that is not trusted here", "--ca-file FILE"]),
        (authority.context("vault.example.org"), trusted, ["is for vault.example.org, not for localhost"]),
        (authority.context("localhost", timedelta(days=-1)), trusted, ["ended at ", "server.tls_cert", "clock"]),
    ]
    for context, words, named in cases:
        with running_stub(tls=context) as server:
            address = server.url.replace("127.0.0.1", "localhost")
            assert main([*LIST, "--server", address, *words]) == 7
            shown = capsys.readouterr().err
            assert "issued by CN=Test authority" in shown
            assert "nothing was sent" in shown
            assert all(each in shown for each in named), shown
            assert server.asked == []
    with running_stub(tls=authority.context("localhost")) as server:
        server.on("GET", "/v1/tokens", answer({"tokens": []}))
        server.on("GET", "/healthz", answer({"status": "ok", "vault": VAULT, "trial": False}))
        address = server.url.replace("127.0.0.1", "localhost")
        assert main([*LIST, "--server", address, *trusted]) == 0
        assert add(address, *trusted) == 0
        assert main([*LIST, "--profile", "north"]) == 0
        monkeypatch.setenv("CALLVAULT_CA_FILE", str(authority.file))
        assert main([*LIST, "--server", address]) == 0
        assert main([*LIST, "--server", address.replace("https", "http")]) == 6
        assert "like a server that speaks only https" in capsys.readouterr().err


def doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, str]]:
    """Return what doctor says of the server and of certificates; of the vault, which there is none of, it says more."""
    (tmp_path / "config.toml").write_text("[server]\nport = 0\n")
    main(["doctor", "--config", str(tmp_path / "config.toml"), "--json", *words])
    findings = json.loads(capsys.readouterr().out)["findings"]
    return [each for each in findings if each["subject"] in {"server", "tls"}]


def test_doctor_trusts_whom_the_profile_trusts_and_warns_of_a_certificate_that_is_about_to_end(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trusted = ["--ca-file", str(authority.file)]
    for days, levels in ((13, ["warning", "ok"]), (15, ["ok"])):
        with running_stub(tls=authority.context("localhost", timedelta(days=days))) as server:
            server.on("GET", "/healthz", answer({"status": "ok", "vault": VAULT, "trial": False}))
            server.on("GET", "/readyz", answer({"status": "ready", "object_store": "ok"}))
            address = server.url.replace("127.0.0.1", "localhost")
            assert add(address, *trusted, name=f"in-{days}") == 0
            capsys.readouterr()
            [refused] = doctor(tmp_path, capsys, "--server", address)
            assert "authority that is not trusted here" in refused["message"]
            for words in (["--server", address, *trusted], ["--profile", f"in-{days}"]):
                found = doctor(tmp_path, capsys, *words)
                assert [each["level"] for each in found] == levels
                assert found[-1]["message"].startswith(f"ready at {address}")
            if days == 13:
                assert "CN=localhost) ends at " in found[0]["message"]
                assert "UTC, in 12 days" in found[0]["message"]
                assert "SIGHUP" in found[0]["hint"]
            monkeypatch.setenv("CALLVAULT_PROFILE", f"in-{days}")
            assert doctor(tmp_path, capsys)[-1]["level"] == "ok"
            monkeypatch.delenv("CALLVAULT_PROFILE")
            server.on("GET", "/healthz", answer({"status": "ok", "vault": OTHER, "trial": False}))
            [other] = doctor(tmp_path, capsys, "--profile", f"in-{days}")
            assert f"is the vault {OTHER}" in other["message"]


def test_a_certificate_that_breaks_a_rule_is_told_from_one_of_an_unknown_authority(tmp_path: Path) -> None:
    found = read_presented(Authority(tmp_path).certificate.public_bytes(Encoding.DER))
    said = untrusted("vault", 443, 85, "Missing Authority Key Identifier", found)
    assert "breaks a rule for certificates: Missing Authority Key Identifier" in said.message
    assert "not trusted here" in untrusted("vault", 443, 20, "unable to get local issuer certificate", found).message


def test_an_address_that_speaks_no_tls_is_said_to(
    north: StubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*LIST, "--server", north.url.replace("http", "https")]) == 6
    assert "the server does not speak TLS there" in capsys.readouterr().err
    for path, why in ((tmp_path / "none.pem", "No such file"), (kept(tmp_path), "no certificate in PEM")):
        assert main([*LIST, "--server", "https://localhost:1", "--ca-file", str(path)]) == 7
        assert why in capsys.readouterr().err
