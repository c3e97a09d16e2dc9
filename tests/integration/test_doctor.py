"""What `doctor` sees: the vault's files, its clocks and what its server says of itself; it changes nothing."""

import os
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cli.doctor import _ask, _own_address
from cli.profiles import Connection
from tests.helpers.app import SETTINGS, running
from tests.helpers.crashing import memory_directory
from vault.config import parse_config
from vault.errors import ConfigError
from vault.format.keyring import HEAD
from vault.storage.catalog.catalog import open_catalog
from vault.storage.postgres import PostgresSettings, clocks
from vault.wiring import SystemClock, init_vault, open_vault
from vault.wiring.adapters import RECONCILE
from vault.wiring.doctor import certificate_findings, check_vault, clock_finding, disk_findings, file_findings
from vault.wiring.lineage import KEYRING_RANK

NAMED = {"processor": "Northfield IT Ltd", "contact": "privacy@northfield.example"}
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def made(base: Path, **sections):
    config = parse_config(
        {"journal": {"file_bytes": "4MiB", "disk_reserve": "1MiB"}, "identity": NAMED, **sections}, base=base
    )
    await init_vault(config)
    async with open_vault(config, background=False):
        pass
    return config


def told(findings, *, level, subject):
    return [each.message for each in findings if (each.level, each.subject) == (level, subject)]


def everything(base):
    return {path: path.read_bytes() if path.is_file() else None for path in base.rglob("*")}


async def test_doctor_changes_nothing_and_leaves_what_a_crash_left_to_the_next_start(tmp_path):
    config = await made(tmp_path)
    (config.objects_path / "tmp" / "half-written").write_bytes(b"half")
    shutil.rmtree(config.locks_path)
    config.journal_path.joinpath("journal-000000000099.cvj").write_bytes(b"")
    before = everything(tmp_path)
    found = await check_vault(config)
    assert everything(tmp_path) == before
    assert not [each for each in found if each.level == "error"], found
    assert told(found, level="ok", subject="journal") == ["no process has it open"]
    assert "the counts of recordings are those of the rows" in told(found, level="ok", subject="catalog")


async def test_doctor_finds_a_catalog_and_a_keyring_that_are_not_of_one_time(tmp_path):
    config = await made(tmp_path)
    for setting, value, level, subject in (
        (RECONCILE, "asked for", "warning", "catalog"),
        (KEYRING_RANK, "9.9.9", "error", "keyring"),
    ):
        catalog = open_catalog(config.catalog_path, clock=SystemClock())
        await catalog.save_setting(setting, value)
        await catalog.close()
        [found] = told(await check_vault(config), level=level, subject=subject)
        assert "reconciled" in found or "older than the catalog" in found


async def test_doctor_warns_of_files_that_others_may_read_or_that_are_somebody_elses(tmp_path):
    config = await made(tmp_path, catalog={"path": "data/catalog.db"})
    assert told(file_findings(config).findings, level="warning", subject="files") == []
    head = config.replica_paths[0] / HEAD
    head.chmod(0o640)
    config.catalog_path.chmod(0o644)
    found = told(file_findings(config).findings, level="warning", subject="files")
    assert [any(text.startswith(f"{path} may be read") for text in found) for path in (head, config.catalog_path)] == [
        True,
        True,
    ]
    head.chmod(0o600)
    config.catalog_path.chmod(0o600)
    if os.geteuid():
        pytest.skip("only root can give a file away; what is read by others was tested")
    os.chown(head, 12_345, -1)
    os.chown(config.journal_path / "node.id", 12_345, -1)
    found = told(file_findings(config).findings, level="warning", subject="files")
    assert found == [
        f"{head} belongs to uid 12345, and the vault's files to root (uid 0)",
        f"{config.journal_path / 'node.id'} belongs to uid 12345, and the vault's files to root (uid 0)",
    ]
    # Root looks at the vault of its own user, as whoever is on call does.
    for path in (config.resolve(None, ""), *config.resolve(None, "").rglob("*")):
        os.chown(path, 12_345, -1)
    assert told(file_findings(config).findings, level="warning", subject="files") == []


async def test_doctor_warns_of_a_password_in_settings_that_everybody_may_read(tmp_path):
    config_file = tmp_path / "config.toml"
    for text, mode, warned in (
        ('[catalog]\nurl = "postgresql://vault:secret@db.example/vault"\n', 0o644, True),
        ('[catalog]\nurl = "postgresql://vault:secret@db.example/vault"\n', 0o640, False),
        ("", 0o644, False),
    ):
        config_file.write_text(text)
        config_file.chmod(mode)
        found = file_findings(parse_config({}, base=tmp_path), config_file).findings
        messages = [each.message for each in found if "password" in each.message]
        assert bool(messages) is warned
        assert not any("secret@" in each for each in messages)


async def test_doctor_warns_of_replicas_that_are_lost_together():
    with memory_directory() as elsewhere, tempfile.TemporaryDirectory(dir="/var/tmp") as on_disk:
        tmp_path = Path(on_disk)
        if elsewhere.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("there is only one file system here")
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
        (elsewhere / "c").mkdir()
        here = [str(tmp_path / "a"), str(tmp_path / "b")]

        def said(*replicas):
            return [
                each.message for each in disk_findings(parse_config({"keyring": {"replicas": replicas}}, base=tmp_path))
            ]

        assert said(here[0], str(elsewhere / "c"), "s3://one/keyring") == []
        [one] = said(*here, str(elsewhere / "c"))
        assert one == f"2 keyring replicas are on one disk, and are lost with it: {', '.join(here)}"
        [bucket] = said(here[0], "s3://one/a", "s3://one/b")
        assert "in one bucket" in bucket


def test_a_clock_is_off_only_as_far_as_the_time_of_the_answer_leaves_no_doubt():
    def level(ahead, took):
        took = timedelta(seconds=took)
        return clock_finding(NOON, NOON + took / 2 + timedelta(seconds=ahead), NOON + took).level

    assert [level(*each) for each in ((0, 0.1), (0.9, 0.1), (3, 6), (3, 0.1), (-3, 0.1), (-90, 1), (90, 1))] == [
        *("ok", "ok", "ok", "warning", "warning", "error", "error")
    ]
    told_ahead = clock_finding(NOON, NOON + timedelta(seconds=90), NOON).message
    assert told_ahead == "the database's clock is 90.0 s ahead of this machine's"


@pytest.mark.xdist_group("postgres")
async def test_the_clock_of_a_real_database_is_asked_for(postgres):
    before, said, after = await clocks(PostgresSettings(url=postgres.admin_url), SystemClock())
    assert clock_finding(before, said, after).level == "ok"


async def test_doctor_shows_each_reason_of_a_server_that_is_not_ready():
    with memory_directory() as base:
        async with running(base, journal={**SETTINGS["journal"], "disk_reserve": "4000TiB"}) as app:
            findings = await _ask(Connection(server=app.url), absent="error")
            assert [(each.level, each.subject) for each in findings] == [("error", "server")]
            assert findings[0].message.startswith(f"not ready at {app.url}: journal: ")
            reasons = (await app.ask("GET", "/readyz", None)).json["reasons"]
            assert findings[0].message.endswith(reasons[0]["detail"])


def test_doctor_says_when_each_certificate_of_the_settings_ends(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vault")])

    def pem(ends):
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOON - timedelta(days=90), ends)
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)

    settings = {"tls_cert": "cert.pem", "tls_key": "key.pem"}
    config = parse_config({"server": settings}, base=tmp_path)
    later = NOON + timedelta(days=60)
    for files, level in (
        ([later], "ok"),
        ([NOON + timedelta(days=14)], "ok"),
        ([NOON + timedelta(days=14, seconds=-1)], "warning"),
        ([later, NOON + timedelta(days=1)], "warning"),
        ([NOON], "error"),
    ):
        (tmp_path / "cert.pem").write_bytes(b"".join(map(pem, files)))
        [found] = certificate_findings(config, now=NOON)
        assert (found.level, found.subject) == (level, "tls")
        assert found.message.startswith("server.tls_cert (CN=vault) end")
        assert (found.hint is None) == (level == "ok")
    (tmp_path / "cert.pem").write_bytes(b"no certificate")
    with pytest.raises(ConfigError, match=r"^server\.tls_cert: .*it is not a certificate in PEM"):
        certificate_findings(config, now=NOON)
    (tmp_path / "cert.pem").unlink()
    with pytest.raises(ConfigError, match=r"^server\.tls_cert: "):
        certificate_findings(config, now=NOON)
    assert certificate_findings(parse_config({}, base=tmp_path), now=NOON) == []


def test_doctor_knows_where_its_own_server_listens(tmp_path):
    def address(**server):
        return _own_address(parse_config({"server": server}, base=tmp_path))

    files = {"tls_cert": "c", "tls_key": "k"}
    assert address() == "http://127.0.0.1:8080"
    assert address(host="0.0.0.0", port=8443, **files) == "https://127.0.0.1:8443"
    assert address(host="::", port=8443, **files) == "https://[::1]:8443"
    assert address(port=0) is None
