"""kill -9 between a flag and its delivery: the next process delivers; several processes deliver once."""

import asyncio

from tests.helpers.load import CONTENT_TYPE
from tests.helpers.server import TENANT, log_of, make_site, session, zygote
from tests.helpers.webhooks import receiving, verified
from vault.wiring import open_vault


async def flagged(client, site, key):
    url = f"/v1/ingest/{TENANT}/{key}"
    audio = b"\x55" * 4_000
    async with client.put(url, data=audio, headers=site.auth("recorder", **CONTENT_TYPE)) as answer:
        assert answer.status == 201
    async with client.post(f"{url}/flag", json={"category": "threat"}, headers=site.auth("recorder")) as answer:
        assert answer.status == 201, await answer.text()
        return await answer.json()


async def test_an_alert_outlives_the_process_that_raised_it(tmp_path):
    site = await make_site(tmp_path, roles=("recorder",))
    async with receiving() as lead:
        lead.answers = [500] * 100
        async with open_vault(site.config, background=False) as vault:
            await vault.tenants.change(TENANT, safeguarding_webhook=lead.url, actor=None)
        with zygote() as processes:
            server = processes.start(site)
            async with session(server) as client:
                answer = await flagged(client, site, "call")
            await outcome(server, "failed")
            server.kill()
            lead.answers = []
            server = processes.start(site)
            await outcome(server, "acknowledged")
            async with session(server) as client, client.get("/v1/issuer-key") as key:
                issuer_key = await key.read()
            server.kill()
            assert all(verified(headers, body, issuer_key) for headers, body in lead.heard)
            assert len(set(lead.ids)) == 1
            assert lead.messages[0]["data"]["hold_id"] == answer["hold_id"]
            assert "s3cret" not in log_of(site)


async def outcome(server, name):
    """Return once the server has counted such an attempt."""
    async with asyncio.timeout(60), session(server) as client:
        while True:
            async with client.get("/metrics") as answer:
                lines = (await answer.text()).splitlines()
            counted = [line for line in lines if line.startswith(f'callvault_alerts_total{{outcome="{name}"}} ')]
            if float(counted[0].rpartition(" ")[2]):
                return
            await asyncio.sleep(0.02)


async def test_two_nodes_on_one_outbox_send_an_alert_once(tmp_path):
    site = await make_site(tmp_path, roles=("recorder",))
    other = await second_node(site, tmp_path)
    async with receiving() as lead:
        async with open_vault(site.config, background=False) as vault:
            await vault.tenants.change(TENANT, safeguarding_webhook=lead.url, actor=None)
        with zygote() as processes:
            server, _ = processes.start(site), processes.start(other)
            async with session(server) as client:
                for number in range(6):
                    await flagged(client, site, f"call-{number}")
            await lead.times(6)
            await asyncio.sleep(1.5)
            assert len(lead.heard) == len(set(lead.ids)) == 6


async def second_node(site, tmp_path):
    """Return the same vault with a journal of its own, served from another working directory."""
    directory = tmp_path / "second"
    (directory / "j").mkdir(mode=0o700, parents=True)
    data = str(site.config.resolve(None, ""))
    return type(site)(
        directory=directory,
        document={**site.document, "data": data, "journal": {**site.document["journal"], "path": str(directory / "j")}},
        tokens=site.tokens,
    )
