"""A whole vault whose root keys are in a key service, and one that moves there."""

import json
import subprocess
import sys
import uuid

import pytest

from tests.helpers.openbao import MOUNT
from vault.config import parse_config
from vault.errors import ConfigError, Unavailable
from vault.model import ShredPlan
from vault.wiring import SystemClock, init_vault, open_vault, prepare_root_keys
from vault.wiring.doctor import check_vault

pytestmark = pytest.mark.xdist_group("openbao")


@pytest.fixture
def transit(openbao):
    section = {"address": openbao.address, "mount": MOUNT, "token": openbao.token, "prefix": f"v{uuid.uuid4().hex[:8]}"}
    return {"kind": "transit", "transit": section}


def config_in(tmp_path, **keyring):
    named = {"processor": "Vault Ltd", "contact": "dpo@vault.example"}
    return parse_config({"keyring": keyring, "identity": named}, base=tmp_path)


async def levels(config):
    return {finding.level for finding in await check_vault(config)}


async def test_a_vault_lives_on_a_key_service(tmp_path, transit):
    config = config_in(tmp_path, root=transit)
    made = await init_vault(config)
    assert any("transit" in line for line in made.created)
    assert not config.file_root_path(config.keyring.root).exists()
    for epoch in (2, 3):
        async with open_vault(config, background=False) as vault, vault.keyring.writer() as writer:
            receipt = await writer.shred(ShredPlan(intent_id=f"to {epoch}", at=SystemClock().now()))
            assert (receipt.epoch_live, receipt.provider) == (epoch, "transit")
    assert "error" not in await levels(config)


async def test_a_vault_moves_to_a_key_service_and_leaves_the_files(tmp_path, transit):
    before = config_in(tmp_path)
    await init_vault(before)
    moving = config_in(tmp_path, root=transit, previous_root={"kind": "file"})
    with pytest.raises(Unavailable):
        async with open_vault(config_in(tmp_path, root=transit), background=False):
            pass
    assert "transit" in await prepare_root_keys(moving)
    assert "error" not in await levels(moving)
    async with open_vault(moving, background=False) as vault, vault.keyring.writer() as writer:
        await writer.shred(ShredPlan(intent_id="move", at=SystemClock().now()))
    assert [path.name for path in before.file_root_path(before.keyring.root).iterdir()] == ["ROOT-KEYS"]
    assert "error" not in await levels(config_in(tmp_path, root=transit))
    with pytest.raises(Unavailable):
        async with open_vault(before, background=False):
            pass


async def test_a_service_that_refuses_leaves_nothing_that_would_refuse_the_next_init(tmp_path, transit):
    wrong = {"kind": "transit", "transit": {**transit["transit"], "token": "s.wrong"}}
    with pytest.raises(ConfigError, match="403"):
        await init_vault(config_in(tmp_path, root=wrong))
    await init_vault(config_in(tmp_path, root=transit))


async def test_a_new_vault_has_no_previous_provider_and_a_move_needs_one(tmp_path, transit):
    with pytest.raises(ConfigError, match="previous_root"):
        await init_vault(config_in(tmp_path, root=transit, previous_root={"kind": "file"}))
    with pytest.raises(ConfigError, match="previous_root"):
        await prepare_root_keys(config_in(tmp_path, root=transit))
    assert list(tmp_path.iterdir()) == []


async def test_doctor_reports_a_credential_that_is_missing(tmp_path):
    config = config_in(tmp_path, root={"kind": "transit", "transit": {"address": "https://vault.example.org"}})
    first = next(finding for finding in await check_vault(config) if finding.subject == "root keys")
    assert first.level == "error"
    assert "CALLVAULT_TRANSIT_TOKEN" in first.hint


def test_keys_prepare_makes_the_store_of_a_move_and_says_so(tmp_path, transit, openbao):
    section = transit["transit"]
    config = tmp_path / "config.toml"
    settings = f"""[keyring.root]
kind = "transit"
[keyring.root.transit]
address = "{section["address"]}"
prefix = "{section["prefix"]}"
[keyring.previous_root]
kind = "file"
"""
    config.write_text(settings)
    command = [sys.executable, "-m", "cli", "keys", "prepare", "--json", "--config", str(config)]
    environment = {"CALLVAULT_TRANSIT_TOKEN": openbao.token}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "transit" in json.loads(done.stdout)["prepared"]
    config.write_text(settings.partition("[keyring.previous_root]")[0])
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 7
    assert "previous_root" in done.stderr
    assert openbao.token not in done.stderr + done.stdout
