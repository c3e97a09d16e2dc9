"""No certificate says "Callvault operator": a vault that does not know who runs it shreds nothing, and says so."""

import json
import sys
from contextlib import suppress

import pytest
import typer

from cli.main import main
from tests.helpers.acts import ANN, BOB
from tests.helpers.approvals import approve_erasure, known
from tests.helpers.crashing import ACME, BETA, ManualClock, call, record, storing
from tests.helpers.nodes import SOUND, add_tenant, node_config
from vault.config import IdentitySettings, load_config
from vault.errors import Unavailable
from vault.model import RecordingState
from vault.ports.erasures import ErasureBasis
from vault.services.deletion.erasures import ErasureRequest, WaitingErasures
from vault.wiring import init_vault, open_vault
from vault.wiring.doctor import check_vault


async def test_nothing_is_shredded_under_a_placeholder_and_all_of_it_once_the_vault_has_a_name(tmp_path):
    clock, named = ManualClock(), node_config(tmp_path)
    nameless = named.model_copy(update={"identity": IdentitySettings()})
    await init_vault(nameless, clock=clock)
    async with open_vault(nameless, clock=clock, background=False) as vault, storing(vault):
        await add_tenant(vault)
        row = await record(vault, call("one", days=10), SOUND(1_000))
        # Where nothing is due, nothing is refused.
        await vault.sweeper.sweep(trigger="expiry", actor=None)
        asked = ErasureRequest(
            tenant=ACME, basis=ErasureBasis.ART17, case_reference="DSR-1", recordings=(row,), queue=True
        )
        erasure = (await vault.erasures.request(asked, actor=ANN)).erasure
        assert (await vault.erasures.waiting()).waiting == 0
        await known(vault, ANN)
        with suppress(Unavailable):
            await approve_erasure(vault, erasure.id, actor=BOB)
        for report in (
            await vault.sweeper.sweep(trigger="expiry", actor=None),
            await vault.sweeper.last(),
            await vault.sweeper.preview(),
        ):
            assert report.erasures.waiting == 1
            assert report.erasures.reason.startswith("identity.processor: certificates would carry")
        assert await vault.erasures.waiting(tenant=BETA) == WaitingErasures()
        clock.advance(days=20)
        with pytest.raises(Unavailable, match=r"^identity\.processor: .*nothing was shredded"):
            await vault.sweeper.sweep(trigger="expiry", actor=None)
        assert vault.keyring.derivable((await vault.catalog.recording(row)).audio)
        assert await vault.catalog.unfinished_shreds() == []
        # A sweep that waits for a name is no clock that jumped.
        assert vault.keyring.last_sweep_at == clock.now()
    found = [each for each in await check_vault(nameless) if each.subject == "identity"]
    assert [each.level for each in found] == ["error"]
    async with open_vault(named, clock=clock, background=False) as vault:
        await vault.sweeper.sweep(trigger="expiry", actor=None)
        assert (await vault.catalog.recording(row)).state is RecordingState.SHREDDED
        assert (await vault.sweeper.last()).erasures == WaitingErasures()
        issued = await vault.catalog.certificates(recording=row)
        [document, *_] = await vault.certificates.documents(issued)
        assert document.parties.processor == "Vault Ltd"


def test_init_asks_at_a_terminal_and_writes_what_it_is_told_into_the_settings(tmp_path, monkeypatch, capsys):
    path = tmp_path / "config.toml"
    path.write_text('[identity]\ncontact = "dpo@vault.example"\n')
    asked = []
    monkeypatch.setattr(typer, "prompt", lambda text, **_: asked.append(text) or "Vault Ltd")
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda _: True})())
    assert main(["init", "--config", str(path)]) == 0
    assert len(asked) == 1
    identity = load_config(path).identity
    assert (identity.processor, identity.contact) == ("Vault Ltd", "dpo@vault.example")
    assert "placeholder" not in capsys.readouterr().err


def test_init_takes_the_name_as_options_and_warns_without_one(tmp_path, capsys):
    for words, unnamed in ((("--processor", "V", "--contact", "d@v.example"), ()), ((), ("processor", "contact"))):
        path = tmp_path / str(len(words)) / "config.toml"
        path.parent.mkdir()
        path.write_text("")
        assert main(["init", "--config", str(path), *words]) == 0
        assert load_config(path).identity.unnamed == unnamed
        assert ("placeholder" in capsys.readouterr().err) is bool(unnamed)
    assert main(["init", "--config", str(tmp_path / "0" / "config.toml"), "--trial", "--json"]) == 7
    assert json.loads(capsys.readouterr().out or "{}") == {}
