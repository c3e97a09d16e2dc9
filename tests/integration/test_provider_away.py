"""The root-key provider is away: what needs none goes on, on every node."""

import contextlib
from datetime import timedelta

from tests.helpers.app import SETTINGS, TENANTS, running, sound
from tests.helpers.crashing import memory_directory, person
from vault.config import parse_config
from vault.ids import RecordingId
from vault.model import HoldKind, HoldState, Role
from vault.services.holds.holds import HoldRequest
from vault.wiring import open_vault

OURS = TENANTS[0]


def request(app, recording: str, matter: str) -> HoldRequest:
    return HoldRequest(
        tenant=OURS,
        kind=HoldKind.LEGAL,
        matter=matter,
        reason="claim",
        authority="general counsel",
        owner="legal",
        review_at=app.clock.now() + timedelta(days=200),
        recordings=(RecordingId(recording),),
    )


@contextlib.contextmanager
def sealed(config):
    """Take the root keys' directory away until the block ends."""
    away = config.file_root_path(config.keyring.root).with_name("away")
    config.file_root_path(config.keyring.root).rename(away)
    yield
    away.rename(config.file_root_path(config.keyring.root))


async def test_every_node_places_holds_and_begins_calls_while_the_provider_is_away():
    ann = person("ann", Role.COMPLIANCE, OURS)
    with memory_directory() as base:
        async with running(base) as app:
            recording = await app.upload("call", sound(2_000))
            (base / "journal-2").mkdir(mode=0o700)
            second = parse_config({**SETTINGS, "journal": {**SETTINGS["journal"], "path": "journal-2"}}, base=base)
            async with open_vault(second, clock=app.clock, background=False) as other:
                async with other.keyring.writer() as writer:
                    await writer.settle()  # the other node was the last to write
                with sealed(app.config):
                    nodes = (app.vault, other, app.vault)
                    placed = [
                        await node.holds.place(request(app, recording, f"case {n}"), actor=ann)
                        for n, node in enumerate(nodes)
                    ]
                    assert {hold.state for hold in placed} == {HoldState.ACTIVE}
                    app.clock.advance(days=1)  # a day without cohorts yet
                    await app.vault.keyring.refresh()
                    await app.upload("tomorrow", sound(500))
                await other.keyring.refresh()
                assert len({pin.tag for pin in other.keyring.pins(OURS)}) == len(nodes)
                terms = await other.catalog.holds_on(RecordingId(recording))
                assert {each.id for each in terms} == {hold.id for hold in placed}
                assert [await other.catalog.hold(hold.id) for hold in placed] == placed
