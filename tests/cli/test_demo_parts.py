import json
import random
from pathlib import Path

import pytest

from cli.demo.command import demo
from cli.demo.narrator import ClaimFailed, Narrator
from cli.demo.proofs import RUN_BYTES, AudioIndex, search
from cli.demo.stage import make_directory, sample_call
from cli.demo.story import as_wav
from cli.main import main
from cli.output import Output
from vault.errors import Forbidden, NotFound, Refused, Unavailable

AUDIO = random.Random(7).randbytes(5000)
NOISE = random.Random(8).randbytes(3000)


@pytest.mark.parametrize("start", [0, 1, 17, 4968])
def test_a_run_of_32_bytes_is_found_wherever_it_lies(start: int) -> None:
    index = AudioIndex(AUDIO)
    for offset in range(40):
        data = NOISE[:offset] + AUDIO[start : start + RUN_BYTES] + NOISE[-offset:]
        assert list(index.runs(data)) != [], offset


def test_a_shorter_run_is_not_a_finding() -> None:
    index, end = AudioIndex(AUDIO), 100 + RUN_BYTES - 1
    before, after = bytes([AUDIO[99] ^ 1]), bytes([AUDIO[end] ^ 1])
    for offset in range(40):
        data = NOISE[:offset] + before + AUDIO[100:end] + after + NOISE[-1000:]
        assert list(index.runs(data)) == [], offset


def test_silence_is_not_a_finding() -> None:
    pause = b"\xff\x7f" * 500
    assert list(AudioIndex(AUDIO + pause).runs(pause)) == []


def test_every_file_is_searched_for_audio_and_words(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "journal").write_bytes(NOISE + AUDIO[:40])
    (tmp_path / "catalog").write_bytes(NOISE + b"+442079460123" + NOISE)
    (tmp_path / "clean").write_bytes(NOISE)
    seen = search(tmp_path, AudioIndex(AUDIO), words=(b"+442079460123",))
    assert (seen.files, seen.bytes) == (3, 3 * 3000 + 40 + 3000 + 13)
    assert {place.partition(":")[0] for place in seen.found} == {"catalog", "deep/er/journal"}


def test_the_sample_call_is_rendered_as_the_wav_a_player_gets() -> None:
    wav = as_wav(sample_call())
    assert wav[:4] == b"RIFF"
    assert len(wav) == 44 + 2 * len(sample_call())


def test_a_claim_that_is_not_so_is_never_told(capsys) -> None:
    narrator = Narrator(Output(as_json=True))
    with pytest.raises(ClaimFailed):
        narrator.prove(False, "pigs fly")
    assert capsys.readouterr().out == ""


async def test_a_refusal_must_come_for_the_right_reason(capsys) -> None:
    narrator = Narrator(Output(as_json=True))

    async def refuse() -> None:
        raise Forbidden("no")

    async def allow() -> None:
        return

    await narrator.refused(refuse(), Forbidden, "the door is shut", status=403)
    with pytest.raises(ClaimFailed):
        await narrator.refused(allow(), Forbidden, "the door is shut")
    with pytest.raises(Forbidden):
        await narrator.refused(refuse(), NotFound, "there is no door")
    with pytest.raises(ClaimFailed):
        await narrator.refused(refuse(), Refused, "a broader reason is not the reason")
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["claim"] for line in told] == ["the door is shut"]


async def test_waiting_in_vain_ends(capsys) -> None:
    async def never() -> bool:
        return False

    with pytest.raises(Unavailable, match="not within 0 seconds: for nothing"):
        await Narrator(Output(as_json=True)).wait("for nothing", never, limit_seconds=0.01)


def test_a_directory_with_something_in_it_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    assert main(["demo", "--keep", str(tmp_path)]) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert make_directory(tmp_path / "new").is_dir()


async def test_a_demo_whose_server_does_not_work_fails_and_keeps_the_evidence(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr("cli.demo.stage._program", lambda: ("/bin/false",))
    with pytest.raises(Unavailable, match="a command ended with exit code 1"):
        await demo(Output(as_json=True), keep=tmp_path)
    told = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert told == ["started", "step", "failed"]
    assert (tmp_path / "config.toml").exists()
