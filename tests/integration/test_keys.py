"""The keyring over HTTP and by command: its state, the proof that it is whole, rotation, and repair beside a server."""

import asyncio
import shutil

import pytest

from cli.main import main
from tests.helpers.app import app, sound
from vault.errors import IntegrityError
from vault.model import Role
from vault.wiring.doctor import repair_replica, verify_keyring

__all__ = ["app"]


async def test_rotation_keeps_every_recording_and_makes_older_copies_of_the_keyring_useless(app):
    recording = await app.upload("call-1", sound(5000))
    before = (await app.ask("GET", "/v1/keys", Role.OPERATOR)).json
    old = app.config.replica_paths[0].with_name("copied")
    await asyncio.to_thread(shutil.copytree, app.config.replica_paths[0], old)
    answer = await app.ask("POST", "/v1/keys/rotate", Role.OPERATOR, body={})
    assert answer.status == 200
    assert (answer.json["epoch_destroyed"], answer.json["epoch_live"]) == (before["epoch"], before["epoch"] + 1)
    assert answer.json["generation"] == before["generation"] + 1
    assert answer.json["calls_under_way"] == 0
    assert (await app.play(recording)).body == sound(5000)
    assert [entry["event"] for entry in await app.audit() if entry["event"].startswith("keyring.")] == [
        "keyring.rotation_intended",
        "keyring.generations_closed",
        "keyring.rotated",
    ]
    alone = app.config.model_copy(update={"keyring": app.config.keyring.model_copy(update={"replicas": (str(old),)})})
    with pytest.raises(IntegrityError, match="no replica of the keyring opens"):
        await verify_keyring(alone)


async def test_status_names_each_replica_and_what_is_wrong_with_it(app):
    found = (await app.ask("GET", "/v1/keys", Role.OPERATOR)).json
    assert [item["name"] for item in found["replicas"]] == [str(path) for path in app.config.replica_paths]
    assert {item["ok"] for item in found["replicas"]} == {True}
    assert (found["write_quorum"], found["provider"], found["lease_seconds"]) == (2, "file", 15)
    (app.config.replica_paths[2] / "head").write_bytes(b"rot")
    found = (await app.ask("GET", "/v1/keys", Role.OPERATOR)).json
    assert [item["ok"] for item in found["replicas"]] == [True, True, False]
    assert found["replicas"][2]["detail"]


async def test_a_lost_replica_is_found_and_repaired_while_the_server_runs(app):
    lost = app.config.replica_paths[1]
    await asyncio.to_thread(shutil.rmtree, lost)
    recording = await app.upload("call-1", sound(5000))
    found = (await app.ask("GET", "/v1/keys/findings", Role.OPERATOR)).json["findings"]
    assert [str(lost) in item["message"] for item in found if item["level"] == "error"] == [True]
    metrics = (await app.ask("GET", "/metrics", Role.OPERATOR)).body.decode()
    assert "callvault_keyring_replicas 3.0" in metrics
    assert "callvault_keyring_replicas_ok 2.0" in metrics
    await repair_replica(app.config, str(lost))
    assert {finding.level for finding in await verify_keyring(app.config)} == {"ok"}
    assert (await app.play(recording)).body == sound(5000)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/keys"), ("GET", "/v1/keys/findings"), ("POST", "/v1/keys/rotate")]
)
async def test_only_an_operator_sees_or_turns_the_keyring(app, method, path):
    for role in Role:
        answer = await app.ask(method, path, role)
        assert (answer.status == 200) == (role is Role.OPERATOR), role


async def test_the_commands_work_beside_a_running_server(app, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CALLVAULT_SERVER", app.url)
    monkeypatch.setenv("CALLVAULT_TOKEN", app.token(Role.OPERATOR))
    assert await asyncio.to_thread(main, ["keys", "status"]) == 0
    assert "keyring-c" in capsys.readouterr().out
    assert await asyncio.to_thread(main, ["keys", "rotate", "--json"]) == 0
    assert '"epoch_live": 2' in capsys.readouterr().out
    assert await asyncio.to_thread(main, ["keys", "rotate"]) == 0
    assert "generation of new calls" in capsys.readouterr().out
    config = tmp_path / "config.toml"
    config.write_text(f'data = "{app.config.replica_paths[0].parent}"\n')
    assert await asyncio.to_thread(main, ["keys", "verify", "--config", str(config)]) == 0
    assert "opens to the live tree" in capsys.readouterr().out
    (app.config.replica_paths[0] / "head").write_bytes(b"rot")
    assert await asyncio.to_thread(main, ["keys", "verify", "--config", str(config)]) == 5
    assert (
        await asyncio.to_thread(main, ["keys", "repair", str(app.config.replica_paths[0]), "--config", str(config)])
        == 0
    )
    assert await asyncio.to_thread(main, ["keys", "verify", "--config", str(config)]) == 0
