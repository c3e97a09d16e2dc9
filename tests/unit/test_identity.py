"""Who runs the vault, written into config.toml: those lines alone change, and what a program cannot write it leaves."""

import tomllib
from pathlib import Path

import pytest

from cli.identity import with_identity, write_identity
from vault.errors import ConfigError

GIVEN = {"processor": 'Müller & "Söhne" \\ Co', "contact": "dpo@mueller.example"}
SHIPPED = (Path(__file__).parents[2] / "config.toml").read_text()


def test_only_the_lines_that_were_asked_for_change():
    after = with_identity(SHIPPED, GIVEN)
    assert tomllib.loads(after) == {**tomllib.loads(SHIPPED), "identity": {**GIVEN, "region": "United Kingdom"}}
    changed = set(SHIPPED.splitlines()) ^ set(after.splitlines())
    assert all(line.startswith(("processor", "contact")) for line in changed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        'data = "d"',
        "[identity]",
        "[identity] # who\n[log]\n",
        '[identity]\nregion = "France"\n# processor = "x"\n\n[log]\nlevel = "INFO"\n',
        '[log]\nlevel = "INFO"\n[identity]\ncontact="a"',
    ],
)
def test_a_file_with_or_without_the_section_says_the_same_and_the_identity(text):
    before = tomllib.loads(text)
    assert tomllib.loads(with_identity(text, GIVEN)) == {**before, "identity": {**before.get("identity", {}), **GIVEN}}


@pytest.mark.parametrize("text", ['identity = {processor = "x"}\n', 'identity.processor = "x"\n'])
def test_what_cannot_be_written_whole_is_left_and_told_how_to_write_by_hand(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        write_identity(path, GIVEN)
    assert "processor = " in caught.value.hint
    assert path.read_text() == text
    assert [each.name for each in tmp_path.iterdir()] == ["config.toml"]


def test_the_file_keeps_its_mode(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(SHIPPED)
    path.chmod(0o640)
    write_identity(path, GIVEN)
    assert path.stat().st_mode & 0o777 == 0o640
