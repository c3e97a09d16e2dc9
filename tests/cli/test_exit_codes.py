import pytest

from cli.exit_codes import EXITS, Exit, exit_code
from cli.main import main
from tests.cli.conftest import TOKEN
from tests.helpers.answers import CERT, REC
from tests.helpers.stub import Reply, StubServer, problem
from vault import errors
from vault.server.problems import status_of

SHOW = ["recordings", "show", REC]
PATH = f"/v1/recordings/{REC}"


def every_error(kind: type[errors.VaultError] = errors.VaultError) -> list[type[errors.VaultError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in every_error(child))]


WANTED = {
    "invalid": 2,
    "range_not_satisfiable": 2,
    "unauthenticated": 3,
    "forbidden": 3,
    "conflict": 3,
    "under_hold": 3,
    "too_late": 3,
    "shredded": 3,
    "guard_tripped": 3,
    "not_found": 4,
    "integrity": 5,
    "tampered": 5,
    "truncated": 5,
    "destroyed": 5,
    "unavailable": 6,
    "journal_full": 6,
    "disk_full": 6,
    "internal": 6,
    "config": 7,
}


@pytest.mark.parametrize(("code", "expected"), WANTED.items())
def test_a_problem_document_decides_the_exit_code(stub: StubServer, code: str, expected: int) -> None:
    kinds = {kind.code: kind for kind in every_error()}
    stub.on("GET", PATH, problem(code, status_of(kinds[code]("x")), "what broke"))
    assert main(SHOW) == expected


def test_every_error_of_the_vault_has_an_exit_code() -> None:
    assert all(exit_code(kind("x")) in Exit for kind in every_error())
    assert Exit.DONE not in EXITS.values()


def test_an_error_is_two_lines_on_standard_error(stub: StubServer, capsys: pytest.CaptureFixture[str]) -> None:
    stub.on(
        "GET",
        PATH,
        problem("under_hold", 409, "it is under legal hold; nothing was deleted", hint="callvault holds list"),
    )
    assert main(SHOW) == 3
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "error: it is under legal hold; nothing was deleted\nhint: callvault holds list\n"


def test_a_shredded_recording_leads_to_its_certificate(stub: StubServer, capsys: pytest.CaptureFixture[str]) -> None:
    stub.on("GET", PATH, problem("shredded", 410, "it was shredded", certificate_id=CERT))
    assert main(SHOW) == 3
    assert f"hint: callvault certificates get {CERT}\n" in capsys.readouterr().err


def test_an_unknown_problem_falls_back_to_its_status(stub: StubServer) -> None:
    stub.on("GET", PATH, problem("invented_later", 404, "gone"))
    assert main(SHOW) == 4


@pytest.mark.parametrize(("status", "expected"), [(502, 6), (404, 4), (403, 3), (302, 6)])
def test_an_answer_that_is_no_problem_document_is_judged_by_its_status(
    stub: StubServer, capsys: pytest.CaptureFixture[str], status: int, expected: int
) -> None:
    stub.on("GET", PATH, Reply(status, b"<html>a proxy</html>", {"Location": "/elsewhere"}))
    assert main(SHOW) == expected
    assert "proxy" not in capsys.readouterr().err
    assert [asked.path for asked in stub.asked] == [PATH]


@pytest.mark.parametrize("body", [b"not json", b"[]"])
def test_success_without_a_json_object_is_an_integrity_failure(stub: StubServer, body: bytes) -> None:
    stub.on("GET", PATH, Reply(200, body))
    assert main(SHOW) == 5


def test_no_server_is_unavailable_and_says_how_to_start_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHOW, "--server", "http://127.0.0.1:1"]) == 6
    assert "error: no server answers at http://127.0.0.1:1: Connection refused\n" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["ftp://host", "nonsense", "http://user:pass@host", "http://"])
def test_an_address_that_is_none_is_a_configuration_error(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHOW, "--server", url]) == 7
    assert "pass@" not in capsys.readouterr().err


def test_a_missing_configuration_is_a_configuration_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--config", "/nonexistent/config.toml"]) == 7
    assert capsys.readouterr().err.startswith("error: there is no configuration at /nonexistent/config.toml\nhint: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["recordings", "sing"],
        ["recordings", "show"],
        ["recordings", "list", "--limit", "0"],
        ["recordings", "list", "--state", "vanished"],
        ["holds", "place", REC],
        ["recordings", "show", ".."],
        ["holds", "review", "hold_1", "--next", "soon", "--note", "x"],
    ],
)
def test_a_mistyped_command_line_is_a_usage_error(
    stub: StubServer, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert stub.asked == []


def test_a_token_on_the_command_line_is_never_repeated(stub: StubServer, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["recordings", "list", TOKEN],
        [TOKEN],
        ["recordings", "list", "--token", f"{TOKEN}\n", "--json"],
    ):
        assert main(arguments) == 2
    shown = capsys.readouterr()
    assert "s3cret" not in shown.out + shown.err


def test_the_token_goes_to_the_server_from_variable_and_file(stub: StubServer, tmp_path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    file.chmod(0o600)
    for options in ([], ["--token-file", str(file)]):
        main([*SHOW, *options])
    sent = [asked.headers["Authorization"] for asked in stub.asked]
    assert sent == [f"Bearer {TOKEN}", "Bearer from-file"]


def test_an_unreadable_token_file_is_a_configuration_error(stub: StubServer) -> None:
    assert main([*SHOW, "--token-file", "/nonexistent"]) == 7
    assert stub.asked == []


def test_a_refused_token_says_where_the_command_takes_one_from(
    stub: StubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.on("GET", PATH, problem("unauthenticated", 401, "the token is unknown", hint="send Authorization: Bearer"))
    assert main(SHOW) == 3
    assert capsys.readouterr().err == (
        "error: the token is unknown\nhint: set CALLVAULT_TOKEN, or pass --token-file FILE\n"
    )


def test_control_characters_from_a_server_do_not_reach_the_terminal(
    stub: StubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.on("GET", PATH, problem("conflict", 409, "before\x1b]0;owned\x07after"))
    assert main(SHOW) == 3
    assert capsys.readouterr().err == "error: before\\x1b]0;owned\\x07after\n"


def test_what_somebody_typed_stays_one_path_segment(stub: StubServer) -> None:
    assert main(["recordings", "show", "../tokens?x=1"]) == 4
    assert [asked.path for asked in stub.asked] == ["/v1/recordings/../tokens?x=1"]
    assert stub.asked[0].query == {}


def test_an_empty_token_is_said_to_be_empty(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLVAULT_TOKEN", "")
    assert main(["tokens", "list"]) == 2
    assert capsys.readouterr().err.startswith("error: the token is empty\nhint: set CALLVAULT_TOKEN")
