"""The PKCS#11 provider with a wrong PIN, a lost token, a missing library: Unavailable, never Destroyed."""

import dataclasses
from pathlib import Path

import pkcs11
import pytest
from pkcs11 import Attribute, exceptions

from tests.helpers.keyrings import TestClock
from tests.helpers.softhsm import PIN
from vault.errors import ConfigError, Destroyed, Unavailable
from vault.keystore.root.common import Secret
from vault.keystore.root.pkcs11 import Pkcs11RootKeys
from vault.model import Assurance

KEY, AAD, TAG = b"k" * 32, b"place", b"tag of a keyring"

pytestmark = pytest.mark.xdist_group("softhsm")


def provider_on(settings, **changes):
    return Pkcs11RootKeys(dataclasses.replace(settings, **changes), clock=TestClock())


@pytest.fixture
def settings(softhsm):
    return softhsm.token()


@pytest.fixture
async def live(settings):
    """A provider with one live version, one destroyed one, and a blob of each."""
    provider = provider_on(settings)
    await provider.create()
    version, gone = await provider.new_version(TAG), await provider.new_version(TAG)
    blobs = [(version, await provider.wrap(version, KEY, AAD)), (gone, await provider.wrap(gone, KEY, AAD))]
    await provider.destroy(gone)
    return provider, blobs


async def refuses_everything(provider, blobs):
    for version, blob in blobs:
        for call in (
            provider.unwrap(version, blob, AAD),
            provider.wrap(version, KEY, AAD),
            provider.versions(),
            provider.new_version(TAG),
            provider.destroy(version),
        ):
            with pytest.raises(Unavailable):
                await call


async def test_a_refused_pin_destroys_nothing_and_is_never_tried_twice(settings, live, tmp_path, monkeypatch):
    _, blobs = live
    file = tmp_path / "pin"
    file.write_text("000000\n")
    provider = provider_on(settings, pin=Secret(file=file))
    await refuses_everything(provider, blobs)
    with pytest.raises(Unavailable, match="not tried again"):
        await provider.versions()
    file.write_text(f"{PIN}\n")
    assert await provider.unwrap(*blobs[0], AAD) == KEY
    with pytest.raises(Destroyed):
        await provider.unwrap(*blobs[1], AAD)


async def test_a_locked_pin_is_an_outage(settings, live, monkeypatch):
    _, blobs = live

    def locked(*args, **kwargs):
        raise exceptions.PinLocked

    provider = provider_on(settings)
    monkeypatch.setattr(provider._token, "_found", type("Locked", (), {"open": locked}))
    await refuses_everything(provider, blobs)


async def test_a_token_that_comes_back_is_used_again_without_a_restart(softhsm, live):
    provider, blobs = live
    away = softhsm.tokens.with_name("away")
    softhsm.tokens.rename(away)
    await refuses_everything(provider, blobs)
    away.rename(softhsm.tokens)
    assert await provider.unwrap(*blobs[0], AAD) == KEY


async def test_a_session_that_breaks_in_the_middle_is_an_outage(live, monkeypatch):
    provider, blobs = live

    def broken(*args, **kwargs):
        raise exceptions.SessionHandleInvalid

    with monkeypatch.context() as patch:
        patch.setattr(provider, "_keys", broken)
        await refuses_everything(provider, blobs)
    assert await provider.unwrap(*blobs[0], AAD) == KEY


async def test_another_token_or_an_empty_one_never_says_destroyed(softhsm, live):
    _, blobs = live
    await refuses_everything(provider_on(softhsm.token()), blobs)
    stranger = provider_on(softhsm.token())
    await stranger.create()
    for version, blob in blobs:
        with pytest.raises(Unavailable):
            await stranger.unwrap(version, blob, AAD)
        with pytest.raises(Unavailable):
            await stranger.destroy(version)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"library": Path("/nowhere/p11.so")}, "cannot be used"),
        ({"token": "nobody"}, "no such token"),
        ({"pin": Secret(value="000000")}, "PIN"),
        ({"assurance": Assurance.HSM}, "hardware"),
    ],
)
async def test_a_misconfiguration_is_the_operators_error_when_the_store_is_made(settings, changes, says):
    with pytest.raises(ConfigError, match=says) as caught:
        await provider_on(settings, **changes).create()
    assert caught.value.hint
    assert caught.value.message.startswith("keyring.root.pkcs11")


async def test_a_store_in_use_is_not_made_again_and_an_empty_one_is_taken_over(live):
    provider, [(version, _), _] = live
    with pytest.raises(ConfigError, match="already"):
        await provider.create()
    await provider.destroy(version)
    await provider.create()


async def test_software_is_never_attested_as_hardware(settings, live):
    provider = provider_on(settings, assurance=Assurance.HSM)
    with pytest.raises(ConfigError, match="assurance"):
        await provider.new_version(TAG)
    assert [finding.level for finding in await provider.self_check()] == ["error"]


async def test_the_token_never_shows_a_root_key(settings, live):
    token = pkcs11.lib(str(settings.library)).get_token(token_label=settings.token)
    with token.open(user_pin=PIN) as session:
        keys = list(session.get_objects({Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY}))
        assert len(keys) == 2, "the marker and the live version"
        for key in keys:
            assert key[Attribute.NEVER_EXTRACTABLE]
            with pytest.raises(exceptions.AttributeSensitive):
                key[Attribute.VALUE]
    with token.open() as session:
        assert list(session.get_objects()) == [], "nobody sees them without the PIN"


async def test_a_destroyed_versions_file_is_gone_from_the_token(softhsm, settings, live):
    provider, [(version, _), _] = live
    before = set(softhsm.tokens.rglob("*.object"))
    await provider.destroy(version)
    assert len(before - set(softhsm.tokens.rglob("*.object"))) == 1
