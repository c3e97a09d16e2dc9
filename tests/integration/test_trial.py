"""A trial vault is marked for ever, wherever its keyring goes, and says so."""

import json
import logging
from pathlib import Path

from tests.integration.app import SETTINGS, App, AppClock, app
from tests.restores import Site
from vault.config import parse_config
from vault.keystore import recovery
from vault.model import Role
from vault.wiring import check_vault, init_vault, open_vault

__all__ = ["app"]


async def created(base: Path, *, trial: bool = False):
    config, clock = parse_config(SETTINGS, base=base), AppClock()
    await init_vault(config, trial=trial, clock=clock)
    return config, clock


def older(monkeypatch) -> None:
    """Let `init` make keyrings as it did before there was a mark."""
    create = recovery.create

    async def unmarked(*arguments, **options):
        await create(*arguments, **{**options, "trial": None})

    monkeypatch.setattr(recovery, "create", unmarked)


async def test_the_mark_outlives_rotation_and_a_new_process_and_is_on_every_replica(tmp_path):
    config, clock = await created(tmp_path, trial=True)
    for _ in range(2):
        async with open_vault(config, clock=clock) as vault:
            async with vault.keyring.writer() as writer:
                await writer.bump_generation()
            assert vault.keyring.trial
            findings = await vault.keyring.check()
            assert sum("opens to the live tree" in each.message for each in findings) == len(config.replicas)


async def test_no_vault_becomes_a_trial_one_later(tmp_path):
    config, clock = await created(tmp_path)
    async with open_vault(config, clock=clock) as vault:
        assert not vault.keyring.trial
        assert not vault.keyring.predates_trial
    async with open_vault(config, clock=clock) as vault:
        assert not vault.keyring.trial


async def test_a_keyring_from_before_the_mark_opens_and_is_no_trial_one(tmp_path, monkeypatch):
    older(monkeypatch)
    config, clock = await created(tmp_path)
    async with open_vault(config, clock=clock) as vault:
        async with vault.keyring.writer() as writer:
            await writer.touch()
        assert not vault.keyring.trial
        assert vault.keyring.predates_trial


async def test_a_restored_trial_vault_is_one(tmp_path):
    site = Site(tmp_path)
    await site.create()
    async with site.open() as vault:
        await site.record(vault, "call-1")
    await site.back_up()
    site.lose_catalog()
    await site.restore()
    async with site.open() as vault:
        assert vault.keyring.trial


async def test_a_trial_vault_says_so_to_everybody_who_asks(app: App, caplog):
    assert (await app.ask("GET", "/healthz", None)).json == {"status": "ok", "trial": True}
    assert (await app.ask("GET", "/v1/keys", Role.OPERATOR)).json["trial"] is True
    rotated = await app.ask("POST", "/v1/keys/rotate", Role.OPERATOR)
    assert rotated.status == 200
    assert (await app.ask("GET", "/v1/keys", Role.OPERATOR)).json["trial"] is True


async def test_serve_and_doctor_warn_of_a_trial_vault_alone(tmp_path, caplog):
    for trial in (True, False):
        base = tmp_path / json.dumps(trial)
        base.mkdir()
        config, clock = await created(base, trial=trial)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            async with open_vault(config, clock=clock):
                pass
        assert any("trial vault" in record.getMessage() for record in caplog.records) is trial
        assert any("trial vault" in each.message for each in await check_vault(config)) is trial
