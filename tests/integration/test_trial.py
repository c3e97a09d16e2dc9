"""A trial vault is marked for ever, wherever its keyring goes, and says so."""

import json
import logging
from datetime import timedelta
from pathlib import Path

import pytest

from tests.helpers.app import SETTINGS, App, AppClock, app, sound
from tests.helpers.restores import Site
from vault.config import parse_config
from vault.errors import ConfigError, Invalid
from vault.keystore import recovery
from vault.model import Role
from vault.retention.periods import Period, parse_period
from vault.wiring import init_vault, open_vault
from vault.wiring.doctor import check_vault

__all__ = ["app"]


async def created(base: Path, *, trial: bool = False, **retention):
    config, clock = (
        parse_config({**SETTINGS, "retention": {**SETTINGS["retention"], **retention}}, base=base),
        AppClock(),
    )
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
    keyring = app.vault.keyring.keyring_id.hex()
    said = (await app.ask("GET", "/healthz", None)).json
    assert said == {"status": "ok", "vault": f"vlt_{keyring}", "trial": True}
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


async def test_a_new_vault_that_is_no_trial_one_needs_a_floor_of_a_day_and_leaves_nothing_behind(tmp_path):
    for short in ({"floor": "0s"}, {"floor": "1h"}, {"default": "1h"}, {"cohort_width": "1m"}):
        with pytest.raises(ConfigError, match=rf"^retention\.{next(iter(short))}: "):
            await created(tmp_path, **short)
        assert list(tmp_path.iterdir()) == []
    await created(tmp_path, trial=True, floor="1s", default="2s", cohort_width="1s")


async def test_a_vault_made_with_a_floor_does_not_open_without_one(tmp_path):
    config, clock = await created(tmp_path)
    lower = config.model_copy(update={"retention": config.retention.model_copy(update={"floor": Period()})})
    with pytest.raises(ConfigError, match=r"^retention\.floor: "):
        async with open_vault(lower, clock=clock):
            pass


async def test_a_vault_from_before_the_floor_starts_keeps_its_shorter_retention_and_warns(
    tmp_path, monkeypatch, caplog
):
    older(monkeypatch)
    config, clock = await created(tmp_path)
    kept = config.retention.model_copy(update={"floor": Period(), "default": Period(timedelta(hours=2))})
    config = config.model_copy(update={"retention": kept})
    with caplog.at_level(logging.WARNING):
        async with open_vault(config, clock=clock) as vault:
            added = await vault.tenants.add(
                identifier="north", name="N", controller="N", contact="dpo", retention=parse_period("1h"), actor=None
            )
            assert await vault.tenants.retention(added.id) == parse_period("1h")
    said = [record.getMessage() for record in caplog.records]
    assert any("no floor binds" in text for text in said)
    assert any("retention.default is 2h" in text for text in said)
    found = [each.message for each in await check_vault(config)]
    assert any("retention of north is 1h" in text for text in found)


async def test_a_tenants_choice_below_the_floor_is_refused(tmp_path):
    config, clock = await created(tmp_path)
    async with open_vault(config, clock=clock) as vault:
        wanted = {"identifier": "north", "name": "N", "controller": "N", "contact": "dpo", "actor": None}
        for text in ("1h", "23h", "8y"):
            with pytest.raises(Invalid, match="outside the vault's bounds"):
                await vault.tenants.add(retention=parse_period(text), **wanted)
        added = await vault.tenants.add(retention=parse_period("1mo"), **wanted)
        assert await vault.tenants.retention(added.id) == Period(months=1)


async def test_months_of_a_tenants_retention_count_from_the_start_of_the_call(app: App):
    answer = await app.ask("PUT", "/v1/tenants/northfield", Role.OPERATOR, body={"retention": "18mo"})
    assert (answer.json["retention"], answer.json["retention_seconds"]) == ("1y6mo", 550 * 86_400)
    recording = await app.upload("call-1", sound(800))
    row = await app.vault.catalog.recording(recording)
    assert row.retain_until == Period(months=18).after(row.started_at)
    assert row.retention_period == "1y6mo"
