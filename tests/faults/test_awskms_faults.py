"""The AWS KMS provider with lost answers, late answers and keys that others meddled with."""

from datetime import timedelta

import pytest

from tests.helpers.keyrings import TestClock
from tests.helpers.kms import KmsServer
from vault.errors import ConfigError, Destroyed, Unavailable
from vault.keystore.root.awskms import AwsKmsRootKeys

KEY, AAD, TAG = b"k" * 32, b"place", b"tag of a keyring"
CREATING = ("ListAliases", "CreateKey", "CreateAlias", "GetParametersForImport", "ImportKeyMaterial", "DescribeKey")
DESTROYING = ("ListAliases", "DescribeKey", "DeleteImportedKeyMaterial", "ScheduleKeyDeletion", "DeleteAlias")


@pytest.fixture
def clock():
    return TestClock()


@pytest.fixture
async def server(clock):
    async with KmsServer(clock=clock.now).running() as running:
        yield running


async def no_pause(seconds):
    assert seconds > 0


@pytest.fixture
async def provider(server, clock):
    made = AwsKmsRootKeys(server.settings(), clock=clock, pause=no_pause)
    await made.create()
    server.log.clear()
    return made


@pytest.fixture
async def live(provider):
    version = await provider.new_version(TAG)
    return version, await provider.wrap(version, KEY, AAD)


def key_of(server, version):
    return server.keys[version[-36:]]


@pytest.mark.parametrize("landed", [False, True])
@pytest.mark.parametrize("operation", CREATING)
async def test_a_failure_at_any_step_of_new_version_leaves_nothing_that_is_not_listed(
    server, provider, live, operation, landed
):
    version, blob = live
    refuse = server.drop.add if landed else lambda each: server.refuse.update({each: "KMSInternalException"})
    refuse(operation)
    with pytest.raises(Unavailable):
        await provider.new_version(TAG)
    server.drop.clear()
    server.refuse.clear()
    assert await provider.unwrap(version, blob, AAD) == KEY
    for orphan in (await provider.versions()).keys() - {version}:
        await provider.destroy(orphan)
    assert [key.key_id for key in server.keys.values() if key.material] == [version[-36:]]


@pytest.mark.parametrize("landed", [False, True])
@pytest.mark.parametrize("operation", DESTROYING)
async def test_a_failure_at_any_step_of_destroy_is_repaired_by_destroying_again(
    server, provider, live, operation, landed
):
    version, blob = live
    refuse = server.drop.add if landed else lambda each: server.refuse.update({each: "KMSInternalException"})
    refuse(operation)
    with pytest.raises(Unavailable):
        await provider.destroy(version)
    server.drop.clear()
    server.refuse.clear()
    await provider.destroy(version)
    with pytest.raises(Destroyed):
        await provider.unwrap(version, blob, AAD)
    assert await provider.versions() == {}
    assert key_of(server, version).material is None
    assert key_of(server, version).ending


async def test_material_is_deleted_before_the_key_is_scheduled_and_the_name_goes_last(server, provider, live):
    server.log.clear()
    await provider.destroy(live[0])
    acts = [each for each in server.log if each not in {"ListAliases", "DescribeKey"}]
    assert acts == ["DeleteImportedKeyMaterial", "ScheduleKeyDeletion", "DeleteAlias"]
    assert "DescribeKey" in server.log[server.log.index(acts[0]) : server.log.index(acts[1])], "it was read back"


async def test_a_destroy_that_kms_does_not_show_yet_waits_and_is_not_believed(server, provider, live):
    version, _ = live
    server.stale = 3
    await provider.destroy(version)
    assert server.stale == 0
    other = await provider.new_version(TAG)
    server.stale = 1000
    with pytest.raises(Unavailable, match="does not show"):
        await provider.destroy(other)
    server.stale = 0
    assert other in await provider.versions()


async def test_a_version_is_not_given_out_before_kms_lists_it(server, provider, monkeypatch):
    create_alias = server._CreateAlias

    def creating(**request):
        server.hidden = 3
        return create_alias(**request)

    monkeypatch.setattr(server, "_CreateAlias", creating)
    version = await provider.new_version(TAG)
    assert server.hidden == 0
    assert version in await provider.versions()


@pytest.mark.parametrize(
    "state",
    [{"enabled": False}, {"ending": True}, {"material": None}],
    ids=["disabled", "scheduled with its material", "not seen to have material"],
)
async def test_a_key_that_somebody_stopped_is_not_destroyed(server, provider, live, state):
    version, blob = live
    key = key_of(server, version)
    vars(key).update(state)
    for call in (provider.unwrap(version, blob, AAD), provider.wrap(version, KEY, AAD)):
        with pytest.raises(Unavailable):
            await call
    assert version in await provider.versions()
    assert "error" in [finding.level for finding in await provider.self_check()]
    await provider.destroy(version)
    assert key.material is None
    with pytest.raises(Destroyed):
        await provider.unwrap(version, blob, AAD)


async def test_a_key_that_is_missing_is_destroyed_only_once_kms_can_have_ended_it(server, provider, live, clock):
    version, blob = live
    del server.keys[version[-36:]]
    server.aliases = {name: key_id for name, key_id in server.aliases.items() if key_id in server.keys}
    clock.advance(timedelta(days=6, hours=23))
    for call in (provider.unwrap(version, blob, AAD), provider.destroy(version)):
        with pytest.raises(Unavailable):
            await call
    clock.advance(timedelta(hours=1))
    with pytest.raises(Destroyed):
        await provider.unwrap(version, blob, AAD)
    assert (await provider.destroy(version)).version == version


async def test_another_account_never_says_destroyed(provider, live, clock):
    version, blob = live
    clock.advance(timedelta(days=365))
    async with KmsServer(clock=clock.now).running() as elsewhere:
        stranger = AwsKmsRootKeys(elsewhere.settings(), clock=clock)
        for _ in range(2):
            for call in (stranger.unwrap(version, blob, AAD), stranger.destroy(version)):
                with pytest.raises(Unavailable):
                    await call
            if not elsewhere.keys:
                await stranger.create()


async def test_a_store_in_use_is_not_made_again_and_an_empty_one_is_taken_over(server, provider):
    keys = len(server.keys)
    await provider.create()
    assert len(server.keys) == keys + 1, "the proof makes one more, and destroys it"
    await provider.new_version(TAG)
    with pytest.raises(ConfigError, match="already"):
        await provider.create()


async def test_a_missing_right_shows_when_the_store_is_made(server, clock):
    server.refuse["DeleteImportedKeyMaterial"] = "AccessDeniedException"
    with pytest.raises(ConfigError, match="destroy a root version") as caught:
        await AwsKmsRootKeys(server.settings(), prefix="poor", clock=clock).create()
    assert "docs/providers.md" in caught.value.hint
