"""What every root-key provider promises."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.keyrings import TestClock
from tests.helpers.kms import KmsServer
from tests.helpers.memory_root_keys import MemoryRootKeys
from tests.helpers.openbao import MOUNT
from vault.errors import Destroyed, Invalid, Tampered, Unavailable
from vault.keystore.root.awskms import AwsKmsRootKeys
from vault.keystore.root.common import RootKeys, Secret
from vault.keystore.root.file import FileRootKeys
from vault.keystore.root.pairs import CompositeRootKeys, MovingRootKeys
from vault.keystore.root.pkcs11 import Pkcs11RootKeys
from vault.keystore.root.transit import TransitRootKeys, TransitSettings
from vault.model import Assurance

KEY, AAD, TAG = b"k" * 32, b"place", b"t" * 64
CLOCK = TestClock()

Outage = Callable[[], contextlib.AbstractContextManager[None]]


@dataclass(kw_only=True)
class Made:
    """A provider on a store of its own, and what takes its service away for a while."""

    provider: RootKeys
    outage: Outage


Make = Callable[[Path], Awaitable[Made]]


@contextlib.contextmanager
def renamed(path: Path):
    away = path.with_name(f"{path.name}.away")
    path.rename(away)
    yield
    away.rename(path)


def fresh_prefix() -> str:
    return f"t{uuid.uuid4().hex[:12]}"


def memory_maker(request, stack) -> Make:
    async def make(directory):
        provider = MemoryRootKeys(clock=CLOCK)
        await provider.create()
        return Made(provider=provider, outage=contextlib.nullcontext)  # memory does not go away

    return make


def file_maker(request, stack) -> Make:
    async def make(directory):
        provider = FileRootKeys(directory, clock=CLOCK)
        await provider.create()
        return Made(provider=provider, outage=lambda: renamed(directory))

    return make


def transit_maker(request, stack) -> Make:
    server = request.getfixturevalue("openbao")

    async def make(directory):
        directory.mkdir()
        token = directory / "token"
        token.write_text(f"{server.token}\n")
        settings = TransitSettings(address=server.address, mount=MOUNT, token=Secret(file=token))
        provider = TransitRootKeys(settings, prefix=fresh_prefix(), clock=CLOCK)
        await provider.create()

        @contextlib.contextmanager
        def outage():
            token.write_text("s.revoked")
            yield
            token.write_text(server.token)

        return Made(provider=provider, outage=outage)

    return make


def pkcs11_maker(mechanism):
    def maker(request, stack) -> Make:
        softhsm = request.getfixturevalue("softhsm")
        settings = softhsm.token()

        async def make(directory):
            provider = Pkcs11RootKeys(settings, prefix=fresh_prefix(), mechanism=mechanism, clock=CLOCK)
            await provider.create()
            return Made(provider=provider, outage=lambda: renamed(softhsm.tokens))

        return make

    return maker


def awskms_maker(request, stack) -> Make:
    server = KmsServer(clock=CLOCK.now)

    async def make(directory):
        if not server.port:
            await stack.enter_async_context(server.running())
        provider = AwsKmsRootKeys(server.settings(), prefix=fresh_prefix(), clock=CLOCK)
        await provider.create()

        @contextlib.contextmanager
        def outage():
            server.refuse = dict.fromkeys(("ListAliases", "CreateKey", "Decrypt"), "KMSInternalException")
            yield
            server.refuse = {}

        return Made(provider=provider, outage=outage)

    return make


def paired(combine, one, other):
    """Return a maker of a provider over two, of which the second one suffers the outage."""

    def maker(request, stack) -> Make:
        makers = one(request, stack), other(request, stack)

        async def make(directory):
            directory.mkdir()
            halves = [await each(directory / str(place)) for place, each in enumerate(makers)]
            return Made(provider=combine(*(half.provider for half in halves)), outage=halves[1].outage)

        return make

    return maker


def moving(previous, current):
    return MovingRootKeys(current, previous=previous)


OPENBAO = pytest.mark.xdist_group("openbao")
SOFTHSM = pytest.mark.xdist_group("softhsm")
MAKERS = [
    pytest.param((memory_maker, Assurance.BEST_EFFORT), id="memory"),
    pytest.param((file_maker, Assurance.BEST_EFFORT), id="file"),
    pytest.param((transit_maker, Assurance.DEVICE), id="transit", marks=OPENBAO),
    pytest.param((pkcs11_maker("auto"), Assurance.DEVICE), id="pkcs11", marks=SOFTHSM),
    pytest.param((pkcs11_maker("aes-key-wrap-pad"), Assurance.DEVICE), id="pkcs11-key-wrap", marks=SOFTHSM),
    pytest.param((awskms_maker, Assurance.DEVICE), id="awskms"),
    pytest.param((paired(CompositeRootKeys, memory_maker, file_maker), Assurance.BEST_EFFORT), id="composite"),
    pytest.param(
        (paired(CompositeRootKeys, file_maker, transit_maker), Assurance.DEVICE), id="file+transit", marks=OPENBAO
    ),
    pytest.param((paired(moving, memory_maker, file_maker), Assurance.BEST_EFFORT), id="moving"),
]


@pytest.fixture(params=MAKERS)
async def made(request) -> AsyncIterator[tuple[Make, Assurance]]:
    maker, assurance = request.param
    async with AsyncExitStack() as stack:
        yield maker(request, stack), assurance


@pytest.fixture
def make(made) -> Make:
    return made[0]


@pytest.fixture
async def one(make, tmp_path) -> Made:
    return await make(tmp_path / "keys")


@pytest.fixture
def provider(one) -> RootKeys:
    return one.provider


async def test_what_was_wrapped_unwraps(provider):
    version = await provider.new_version(TAG)
    blob = await provider.wrap(version, KEY, AAD)
    assert KEY not in blob
    assert await provider.unwrap(version, blob, AAD) == KEY


async def test_two_wraps_of_one_key_differ(provider):
    version = await provider.new_version(TAG)
    assert await provider.wrap(version, KEY, AAD) != await provider.wrap(version, KEY, AAD)


async def test_a_changed_blob_or_place_is_tampered(provider):
    version = await provider.new_version(TAG)
    blob = await provider.wrap(version, KEY, AAD)
    for changed in (blob[:-1] + bytes([blob[-1] ^ 1]), bytes([blob[0] ^ 1]) + blob[1:], blob[:-1], b""):
        with pytest.raises(Tampered):
            await provider.unwrap(version, changed, AAD)
    with pytest.raises(Tampered):
        await provider.unwrap(version, blob, b"elsewhere")


async def test_one_version_does_not_open_anothers_blob(provider):
    one, two = await provider.new_version(TAG), await provider.new_version(TAG)
    blob = await provider.wrap(one, KEY, AAD)
    with pytest.raises(Tampered):
        await provider.unwrap(two, blob, AAD)


async def test_live_versions_are_listed_with_tag_and_time(provider):
    assert await provider.versions() == {}
    one, two = await provider.new_version(b"one"), await provider.new_version(b"")
    listed = await provider.versions()
    assert {version: info.tag for version, info in listed.items()} == {one: b"one", two: b""}
    assert {info.version for info in listed.values()} == {one, two}
    assert {info.created_at for info in listed.values()} <= {None, CLOCK.now()}


async def test_a_destroyed_version_opens_and_wraps_nothing_and_is_not_listed(provider):
    version, other = await provider.new_version(TAG), await provider.new_version(TAG)
    blob, kept = await provider.wrap(version, KEY, AAD), await provider.wrap(other, KEY, AAD)
    receipt = await provider.destroy(version)
    assert (receipt.version, receipt.effective_at) == (version, CLOCK.now())
    with pytest.raises(Destroyed):
        await provider.unwrap(version, blob, AAD)
    with pytest.raises(Destroyed):
        await provider.wrap(version, KEY, AAD)
    assert set(await provider.versions()) == {other}
    assert await provider.unwrap(other, kept, AAD) == KEY


async def test_destroying_again_succeeds(provider):
    version = await provider.new_version(TAG)
    await provider.destroy(version)
    assert (await provider.destroy(version)).version == version


async def test_a_version_of_another_store_is_unavailable_and_never_destroyed(make, tmp_path):
    one, other = [(await make(tmp_path / name)).provider for name in ("one", "other")]
    version = await one.new_version(TAG)
    blob = await one.wrap(version, KEY, AAD)
    with pytest.raises(Unavailable):
        await other.unwrap(version, blob, AAD)
    with pytest.raises(Unavailable):
        await other.destroy(version)
    assert await one.unwrap(version, blob, AAD) == KEY


async def test_what_does_not_fit_is_refused(provider):
    version = await provider.new_version(TAG)
    with pytest.raises(Invalid):
        await provider.new_version(b"t" * 73)
    with pytest.raises(Invalid):
        await provider.wrap(version, b"short", AAD)


async def test_a_store_knows_its_own_versions_live_and_destroyed(make, tmp_path):
    one, other = [(await make(tmp_path / name)).provider for name in ("one", "other")]
    live, gone = await one.new_version(TAG), await one.new_version(TAG)
    await one.destroy(gone)
    for version in (live, gone):
        assert await one.owns(version)
        assert not await other.owns(version)
    for version in (
        "",
        "file",
        "composite:+",
        "transit:0011223344556677-0011223344556677",
        "0011223344556677-0011223344556677",
    ):
        assert not await one.owns(version)


@pytest.mark.parametrize("made", MAKERS[1:], indirect=True)
async def test_an_outage_is_unavailable_and_loses_nothing(one, provider):
    version, gone, doomed = [await provider.new_version(TAG) for _ in range(3)]
    blob, late = await provider.wrap(version, KEY, AAD), await provider.wrap(gone, KEY, AAD)
    await provider.destroy(gone)
    with one.outage():
        for call in (
            provider.versions(),
            provider.new_version(TAG),
            provider.wrap(version, KEY, AAD),
            provider.unwrap(version, blob, AAD),
            provider.destroy(doomed),
        ):
            with pytest.raises(Unavailable):
                await call
        assert "error" in [finding.level for finding in await provider.self_check()]
    assert version in await provider.versions()
    assert await provider.unwrap(version, blob, AAD) == KEY
    with pytest.raises(Destroyed):
        await provider.unwrap(gone, late, AAD)
    for left in (await provider.versions()).keys() - {version}:
        await provider.destroy(left)
    await provider.destroy(doomed)
    assert set(await provider.versions()) == {version}


async def test_no_provider_shows_a_key_or_a_credential(provider):
    version = await provider.new_version(TAG)
    await provider.wrap(version, KEY, AAD)
    assert KEY.decode() not in repr(vars(provider))


async def test_self_check_says_how_far_to_trust_it(made, provider):
    assert provider.assurance is made[1]
    await provider.new_version(TAG)
    levels = [finding.level for finding in await provider.self_check()]
    assert "warning" in levels
    assert "error" not in levels
