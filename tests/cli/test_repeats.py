"""What acts is sent under a key, and again while nobody knows whether it took effect."""

import pytest

from cli import client
from cli.main import main
from tests.helpers.answers import HOLD_ROW, REC
from tests.helpers.stub import Reply, StubServer, answer, problem

WORDS = ["--kind", "legal", "--matter", "S", "--reason", "r", "--authority", "a", "--owner", "o"]
PLACE = ["holds", "place", REC, *WORDS, "--review", "2037-01-31"]


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PAUSES", (0.0, 0.0))


@pytest.mark.parametrize(
    "lost",
    [
        problem("outcome_unknown", 503, "it may have taken effect"),
        problem("under_way", 409, "the first request is still under way"),
        Reply(body=b"{", claimed_bytes=100),
    ],
)
def test_a_hold_of_unknown_outcome_is_asked_for_again_under_its_key(stub: StubServer, lost: Reply) -> None:
    stub.on("POST", "/v1/holds", lost, answer(HOLD_ROW, 201))
    assert main(PLACE) == 0
    first, second = (each for each in stub.asked if each.method == "POST")
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert first.body == second.body


def test_two_commands_have_two_keys_and_a_plain_failure_is_asked_once(stub: StubServer) -> None:
    stub.on("POST", "/v1/holds", problem("unavailable", 503, "no answer"))
    assert main(PLACE) == main(PLACE) == 6
    keys = {each.headers["Idempotency-Key"] for each in stub.asked if each.method == "POST"}
    assert len(keys) == len([each for each in stub.asked if each.method == "POST"]) == 2


def test_what_stays_unknown_is_said(stub: StubServer, capsys: pytest.CaptureFixture[str]) -> None:
    stub.on("POST", "/v1/holds", problem("outcome_unknown", 503, "it has begun"))
    assert main(PLACE) == 6
    assert "may have taken effect" in capsys.readouterr().err
    assert len([each for each in stub.asked if each.method == "POST"]) == 3
