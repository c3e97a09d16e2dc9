import hashlib
import json
import stat

import pytest

from cli.main import main
from tests.helpers.answers import REC, RECORDING, WHY, install
from tests.helpers.stub import Reply, StubServer, problem

AUDIO = b"RIFF" + bytes(range(256)) * 1000
PATH = f"/v1/recordings/{REC}/audio"
HEADERS = {"Content-Type": "audio/wav", "Recording-State": "sealed"}


@pytest.fixture
def audible(stub: StubServer) -> StubServer:
    install(stub)
    stub.on("GET", PATH, Reply(200, AUDIO, HEADERS))
    return stub


def test_play_writes_the_audio_and_says_why_it_was_heard(audible: StubServer, tmp_path, capsys) -> None:
    target = tmp_path / "call.wav"
    assert main(["recordings", "play", REC, "--purpose", "complaint", "-o", str(target), "--json"]) == 0
    assert target.read_bytes() == AUDIO
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert audible.asked[0].headers["Purpose"] == "complaint"
    assert json.loads(capsys.readouterr().out) == {
        "id": REC,
        "recording_id": REC,
        "file": str(target),
        "bytes": len(AUDIO),
        "sha256": hashlib.sha256(AUDIO).hexdigest(),
        "media_type": "audio/wav",
        "state": "sealed",
    }


def test_play_to_standard_output_prints_nothing_but_audio(audible: StubServer, capfdbinary) -> None:
    assert main(["recordings", "play", REC, "--purpose", "complaint"]) == 0
    assert capfdbinary.readouterr().out == AUDIO


def test_audio_and_json_do_not_share_standard_output(audible: StubServer, capsys) -> None:
    assert main(["recordings", "play", REC, "--purpose", "complaint", "--json"]) == 2
    assert audible.asked == []


def test_an_existing_file_is_kept_and_no_access_is_made(audible: StubServer, tmp_path) -> None:
    target = tmp_path / "call.wav"
    target.write_bytes(b"mine")
    assert main(["recordings", "play", REC, "--purpose", "complaint", "-o", str(target)]) == 3
    assert target.read_bytes() == b"mine"
    assert audible.asked == []
    assert main(["recordings", "play", REC, "--purpose", "complaint", "-o", str(target), "--force"]) == 0
    assert target.read_bytes() == AUDIO


def test_an_answer_that_breaks_off_is_an_integrity_failure_and_leaves_no_file(stub: StubServer, tmp_path) -> None:
    stub.on("GET", PATH, Reply(200, AUDIO[:1000], HEADERS, claimed_bytes=len(AUDIO)))
    assert main(["recordings", "play", REC, "--purpose", "complaint", "-o", str(tmp_path / "call.wav")]) == 5
    assert list(tmp_path.iterdir()) == []


def test_a_refused_play_leaves_no_file(stub: StubServer, tmp_path) -> None:
    stub.on("GET", PATH, problem("forbidden", 403, "the role may not do this"))
    assert main(["recordings", "play", REC, "--purpose", "complaint", "-o", str(tmp_path / "call.wav")]) == 3
    assert list(tmp_path.iterdir()) == []


def test_export_needs_a_purpose(audible: StubServer, tmp_path) -> None:
    assert main(["recordings", "export", REC, "-o", str(tmp_path / "call.wav")]) == 2
    assert audible.asked == []


def test_export_puts_facts_and_reasons_beside_the_audio(audible: StubServer, tmp_path, capsys) -> None:
    target = tmp_path / "call.wav"
    assert main(["recordings", "export", REC, "--purpose", "access-request", "-o", str(target), "--json"]) == 0
    beside = json.loads((tmp_path / "call.wav.json").read_text())
    assert target.read_bytes() == AUDIO
    assert beside["recording"] == RECORDING
    assert beside["why"] == WHY
    assert beside["purpose"] == "access-request"
    assert beside["audio"]["sha256"] == hashlib.sha256(AUDIO).hexdigest()
    assert json.loads(capsys.readouterr().out)["facts"] == f"{target}.json"


def test_export_does_not_overwrite_facts(audible: StubServer, tmp_path) -> None:
    (tmp_path / "call.wav.json").write_text("mine")
    target = tmp_path / "call.wav"
    assert main(["recordings", "export", REC, "--purpose", "access-request", "-o", str(target)]) == 3
    assert not target.exists()
    assert (tmp_path / "call.wav.json").read_text() == "mine"
    assert audible.asked == []
