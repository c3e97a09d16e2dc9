"""The default settings: one file, which the repository shows, the package carries and `init` writes."""

from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from cli.main import main

ROOT = Path(__file__).parents[2]
SHOWN = ROOT / "config.toml"


def test_init_without_settings_begins_with_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["created"][0] == f"settings {tmp_path / 'config.toml'}"
    written = tmp_path / "config.toml"
    assert (written.read_text(), stat.S_IMODE(written.stat().st_mode)) == (SHOWN.read_text(), 0o600)
    assert (tmp_path / "data" / "catalog.db").exists()


def test_an_init_that_makes_no_vault_leaves_no_settings_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "journal").mkdir(parents=True)
    assert main(["init"]) == 7
    assert "nothing was created or changed" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "journal"]


def test_settings_that_are_named_and_missing_are_not_made_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "--config", str(tmp_path / "other.toml")]) == 7
    assert "begin with the defaults: callvault init" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_defaults_can_be_printed_for_another_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--defaults"]) == 0
    assert capsys.readouterr().out == SHOWN.read_text()


def test_the_package_carries_the_settings_that_the_repository_shows(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("cli/data/config.toml") == SHOWN.read_bytes()
        assert archive.read("cli/data/sample-call.ulaw")
