"""The transit provider while its server dies, is sealed, refuses or is the wrong one: Unavailable, never Destroyed."""

import contextlib
import json
import re
import ssl
from pathlib import Path

import pytest
from aiohttp import web

from tests.helpers.authorities import write_certificate
from tests.helpers.keyrings import TestClock
from tests.helpers.openbao import MOUNT
from tests.helpers.soak import steps
from vault.errors import ConfigError, Destroyed, Unavailable
from vault.keystore.keyring import Keyring
from vault.keystore.replicas import DirectoryReplica
from vault.keystore.root.common import Secret
from vault.keystore.root.transit import TransitRootKeys, TransitSession, TransitSettings
from vault.model import ShredPlan

KEY, AAD, TAG = b"k" * 32, b"place", b"tag of a keyring"
PROVIDERS = Path(__file__).parents[2] / "docs" / "providers.md"

pytestmark = pytest.mark.xdist_group("openbao")


def provider_at(server, *, prefix="callvault", **changes):
    defaults = {"address": server.address, "mount": MOUNT, "token": Secret(value=server.token), "timeout_seconds": 5.0}
    return TransitRootKeys(TransitSettings(**{**defaults, **changes}), prefix=prefix, clock=TestClock())


def every_call(provider, version, blob):
    yield provider.unwrap(version, blob, AAD)
    yield provider.wrap(version, KEY, AAD)
    yield provider.versions()
    yield provider.new_version(TAG)
    yield provider.destroy(version)


async def refuses_everything(provider, *versions_and_blobs):
    for version, blob in versions_and_blobs:
        for call in every_call(provider, version, blob):
            with pytest.raises(Unavailable):
                await call


@pytest.fixture
async def live(fragile_openbao):
    """A provider with one live version, one destroyed one, and a blob of each."""
    provider = provider_at(fragile_openbao)
    await provider.create()
    version, gone = await provider.new_version(TAG), await provider.new_version(TAG)
    blobs = [(version, await provider.wrap(version, KEY, AAD)), (gone, await provider.wrap(gone, KEY, AAD))]
    await provider.destroy(gone)
    return provider, blobs


async def test_a_sealed_server_and_a_dead_one_destroy_nothing(fragile_openbao, live):
    provider, blobs = live
    fragile_openbao.seal()
    await refuses_everything(provider, *blobs)
    fragile_openbao.unseal()
    assert await provider.unwrap(*blobs[0], AAD) == KEY
    fragile_openbao.stop()
    await refuses_everything(provider, *blobs)
    assert [finding.level for finding in await provider.self_check()] == ["error"]
    fragile_openbao.start()
    assert await provider.unwrap(*blobs[0], AAD) == KEY
    with pytest.raises(Destroyed):
        await provider.unwrap(*blobs[1], AAD)


class Killing:
    """Kills the server before or after the n-th request from now on; counts them all."""

    def __init__(self, monkeypatch, server):
        self.server, self.requests, self.count, self.at, self.landed = server, 0, 0, None, False
        ask = TransitSession.ask

        async def killing(session, method, path, body=None):
            self.count += 1
            if self.count == self.at and not self.landed:
                server.stop()
            answer = await ask(session, method, path, body)
            if self.count == self.at:
                server.stop()
                raise Unavailable("the answer was lost")
            return answer

        monkeypatch.setattr(TransitSession, "ask", killing)

    async def every_death(self, act, error=Unavailable):
        """Run `act` with a death at each of its requests, lost and landed; yields after each restart."""
        self.count, self.at = 0, None
        await act()
        self.requests = self.count
        for at in steps(self.requests, of=act.__qualname__):
            for landed in (False, True):
                self.count, self.at, self.landed = 0, at, landed
                with pytest.raises(error):
                    await act()
                self.at = None
                self.server.start()
                yield f"request {at}, {'landed' if landed else 'lost'}"


@pytest.mark.soak
async def test_a_death_at_any_step_of_new_version_loses_nothing_and_leaves_nothing_unlisted(
    fragile_openbao, live, monkeypatch
):
    provider, [(version, blob), _] = live
    async for step in Killing(monkeypatch, fragile_openbao).every_death(lambda: provider.new_version(TAG)):
        assert await provider.unwrap(version, blob, AAD) == KEY, step
        listed = await provider.versions()
        assert {info.tag for info in listed.values()} == {TAG}, step
        for orphan in listed.keys() - {version}:
            await provider.destroy(orphan)
        keys = fragile_openbao.call("LIST", f"{MOUNT}/keys")[1]["data"]["keys"]
        assert len(keys) == 2, f"{step}: only the marker and the live version are left"


@pytest.mark.soak
async def test_a_death_at_any_step_of_destroy_is_repaired_by_destroying_again(fragile_openbao, live, monkeypatch):
    provider, [(version, blob), _] = live
    doomed, sealed = "", b""

    async def destroy():
        nonlocal doomed, sealed
        doomed = await unharmed(provider.new_version(TAG))
        sealed = await unharmed(provider.wrap(doomed, KEY, AAD))
        killing.count = 0
        await provider.destroy(doomed)

    async def unharmed(call):
        at, killing.at = killing.at, None
        try:
            return await call
        finally:
            killing.at = at

    killing = Killing(monkeypatch, fragile_openbao)
    async for step in killing.every_death(destroy):
        assert await provider.unwrap(version, blob, AAD) == KEY, step
        await provider.destroy(doomed)
        with pytest.raises(Destroyed):
            await provider.unwrap(doomed, sealed, AAD)
        assert set(await provider.versions()) == {version}, step


@pytest.mark.soak
async def test_a_death_at_any_step_of_a_shred_leaves_a_keyring_that_opens_on_one_version(
    fragile_openbao, monkeypatch, tmp_path
):
    provider, clock = provider_at(fragile_openbao), TestClock()
    replicas = [DirectoryReplica(tmp_path / name) for name in "abc"]
    await provider.create()
    await Keyring.create(replicas, provider, keyring_id=b"k" * 16, cohort_width_seconds=86400.0)
    epochs = [1]

    async def shred():
        keyring = await Keyring.open(replicas, provider, clock=clock)
        try:
            async with keyring.writer() as writer:
                await writer.shred(ShredPlan(intent_id=f"from {keyring.epoch}", at=clock.now()))
        finally:
            await keyring.close()

    killing = Killing(monkeypatch, fragile_openbao)
    async for step in killing.every_death(shred):
        keyring = await Keyring.open(replicas, provider, clock=clock)
        epochs.append(keyring.epoch)
        await keyring.close()
        assert epochs[-1] - epochs[-2] in {0, 1, 2}, step
        assert len(await provider.versions()) == 1, step
    assert epochs[-1] > epochs[0]


async def test_another_mount_namespace_server_or_prefix_never_says_destroyed(openbao, live):
    _, blobs = live
    openbao.mount("empty-transit")
    for other in (
        provider_at(openbao, mount="no-such-mount"),
        provider_at(openbao, mount="empty-transit"),
        provider_at(openbao, namespace="no-such-namespace"),
        provider_at(openbao, prefix="nobody"),
        provider_at(openbao, address="http://127.0.0.1:1"),
    ):
        await refuses_everything(other, *blobs)
    stranger = provider_at(openbao, prefix="stranger")
    await stranger.create()
    for version, blob in blobs:
        with pytest.raises(Unavailable):
            await stranger.unwrap(version, blob, AAD)
        with pytest.raises(Unavailable):
            await stranger.destroy(version)


async def test_a_revoked_token_destroys_nothing(openbao, tmp_path):
    token = tmp_path / "token"
    token.write_text(openbao.child_token('path "*" { capabilities = ["create", "read", "update", "delete", "list"] }'))
    provider = provider_at(openbao, prefix="revoked", token=Secret(file=token))
    await provider.create()
    version = await provider.new_version(TAG)
    blob = await provider.wrap(version, KEY, AAD)
    assert openbao.call("POST", "auth/token/revoke-self", {}, token=token.read_text())[0] == 204
    await refuses_everything(provider, (version, blob))
    token.unlink()
    await refuses_everything(provider, (version, blob))
    token.write_text(openbao.token)
    assert await provider.unwrap(version, blob, AAD) == KEY


def documented_policy(prefix="callvault"):
    """Return the policy of docs/providers.md."""
    policy = re.search(r"```hcl\n(.*?)```", PROVIDERS.read_text(), re.DOTALL)[1]
    return policy.replace("/callvault-*", f"/{prefix}-*")


async def test_the_documented_policy_is_enough(openbao):
    token = openbao.child_token(documented_policy())
    provider = provider_at(openbao, token=Secret(value=token))
    await provider.create()
    version = await provider.new_version(TAG)
    blob = await provider.wrap(version, KEY, AAD)
    assert await provider.unwrap(version, blob, AAD) == KEY
    await provider.destroy(version)
    assert await provider.versions() == {}
    assert "error" not in [finding.level for finding in await provider.self_check()]


@pytest.mark.parametrize("right", ['"delete"', '"list"', "encrypt/", "decrypt/"])
async def test_a_missing_right_shows_when_the_store_is_made(openbao, right):
    prefix = f"without-{right.strip('/').strip(chr(34))}"
    policy = documented_policy(prefix)
    cut = policy.replace(right, '"sudo"' if right.startswith('"') else "none/")
    assert cut != policy
    provider = provider_at(openbao, prefix=prefix, token=Secret(value=openbao.child_token(cut)))
    with pytest.raises(ConfigError, match="403"):
        await provider.create()


async def test_a_store_in_use_is_not_made_again_and_an_empty_one_is_taken_over(openbao):
    provider = provider_at(openbao, prefix="once")
    await provider.create()
    await provider.create()
    version = await provider.new_version(TAG)
    with pytest.raises(ConfigError, match="already"):
        await provider.create()
    assert set(await provider.versions()) == {version}


@pytest.mark.soak
async def test_what_an_interrupted_proof_left_is_destroyed_by_the_next(fragile_openbao, monkeypatch):
    provider = provider_at(fragile_openbao)
    killing = Killing(monkeypatch, fragile_openbao)
    async for _ in killing.every_death(provider.create, ConfigError):
        pass
    assert killing.requests > 10
    await provider.create()
    assert len(fragile_openbao.call("LIST", f"{MOUNT}/keys")[1]["data"]["keys"]) == 1, "only the marker is left"


async def test_a_wrong_mount_is_the_operators_error_when_the_store_is_made(openbao):
    with pytest.raises(ConfigError, match="404"):
        await provider_at(openbao, mount="no-such-mount").create()


async def test_self_check_finds_a_key_that_can_leave(openbao):
    provider = provider_at(openbao, prefix="leaky")
    await provider.create()
    version = await provider.new_version(TAG)
    (name,) = [
        name
        for name in openbao.call("LIST", f"{MOUNT}/keys")[1]["data"]["keys"]
        if name.startswith("leaky-") and version.split("-")[-1] in name
    ]
    openbao.call("POST", f"{MOUNT}/keys/{name}/config", {"exportable": True, "allow_plaintext_backup": True})
    errors = [finding for finding in await provider.self_check() if finding.level == "error"]
    assert len(errors) == 2
    assert all("leave" in finding.message and finding.hint for finding in errors)


ANSWERS = {
    "500": (500, {"errors": ["boom"]}),
    "redirect": (307, {}),
    "rate limit": (429, {"errors": ["slow down"]}),
    "no json": (200, "<html>"),
    "not the api": (200, ["keys"]),
    "no list": (200, {"data": {"keys": "callvault-store-0011223344556677"}}),
    "proxy 404": (404, "not here"),
    "empty": (404, {}),
}


@pytest.mark.parametrize("answer", ANSWERS)
async def test_whatever_a_proxy_or_a_broken_server_says_destroys_nothing(answer):
    status, body = ANSWERS[answer]

    async def handler(request):
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, headers={"Location": "http://127.0.0.1:1/"})

    async with serving(handler) as port:
        settings = TransitSettings(address=f"http://127.0.0.1:{port}", token=Secret(value="t"), timeout_seconds=5.0)
        version = "transit:0011223344556677-0011223344556677"
        await refuses_everything(TransitRootKeys(settings, clock=TestClock()), (version, b"vault:v1:AAAA"))


@contextlib.asynccontextmanager
async def serving(handler, tls=None):
    """Serve every path with `handler` on a free port."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield site._server.sockets[0].getsockname()[1]
    finally:
        await runner.cleanup()


async def test_a_server_is_believed_only_under_the_named_authority(tmp_path):
    async def handler(request):
        return web.json_response({"data": {"keys": ["callvault-store-0011223344556677"]}})

    write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with serving(handler, context) as port:
        for ca_file, believed in (
            (tmp_path / "cert.pem", True),
            (None, False),
            (tmp_path / "key.pem", False),
            (tmp_path / "absent", False),
        ):
            settings = TransitSettings(
                address=f"https://localhost:{port}", token=Secret(value="t"), ca_file=ca_file, timeout_seconds=5.0
            )
            provider = TransitRootKeys(settings, clock=TestClock())
            if believed:
                assert await provider.versions() == {}
            else:
                with pytest.raises(Unavailable):
                    await provider.versions()
