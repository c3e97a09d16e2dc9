import re
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from vault.config import Config, S3Access, S3Section, load_config, parse_config
from vault.config.file import Listener, RtpengineListener
from vault.config.root import AwsKmsRootSection, FileRootSection, Pkcs11RootSection, TransitRootSection
from vault.errors import ConfigError
from vault.retention.periods import Period
from vault.server.api.tenants import AddTenant, ChangeTenant

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "config.toml"
LISTENER = {"listen": "127.0.0.1:9019", "tenant": "northfield", "token": "tok_" + "0" * 32}
S3 = {"objects": {"kind": "s3", "s3": {"bucket": "calls"}}}


def parse(document):
    return parse_config(document, base=Path("/etc/callvault"))


def write(folder, text):
    path = folder / "config.toml"
    path.write_text(text)
    return path


def sections(model, prefix=""):
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from sections(field.annotation, f"{prefix}{name}.")
        elif not field.exclude:
            yield prefix, name


def test_the_shipped_file_is_the_defaults():
    assert load_config(SHIPPED, environment={}) == parse_config({}, base=ROOT)


OPTIONAL = {
    "objects.s3.": S3Section,
    "backup.s3.": S3Access,
    "keyring.s3.": S3Access,
    "keyring.root.file.": FileRootSection,
    "keyring.root.pkcs11.": Pkcs11RootSection,
    "keyring.root.transit.": TransitRootSection,
    "keyring.root.awskms.": AwsKmsRootSection,
    "streams.audiosocket.": Listener,
    "streams.rtpengine.": RtpengineListener,
}


def commented(name):
    """Return the shipped file's example of a section that is not there by default."""
    lines = SHIPPED.read_text().split(f"# [{name}]\n")[1].split("\n\n")[0].splitlines()
    return tomllib.loads("\n".join(line.removeprefix("# ") for line in lines))


def test_the_shipped_file_shows_every_setting():
    shown = {}
    prefix = ""
    for line in SHIPPED.read_text().splitlines():
        if header := re.fullmatch(r"(?:# )?\[([a-z0-9_.]+)\]", line):
            prefix = header[1] + "."
            shown.setdefault(prefix, set())
        elif setting := re.match(r"(?:# )?([a-z0-9_]+) = ", line):
            shown.setdefault(prefix, set()).add(setting[1])
    assert {"keyring.previous_root.", "keyring.root.composite.first.", "keyring.root.composite.second."} <= set(shown)
    shown = {prefix: names for prefix, names in shown.items() if "composite" not in prefix and "previous" not in prefix}
    expected = {prefix: set(section.model_fields) for prefix, section in OPTIONAL.items()}
    for prefix, name in sections(Config):
        expected.setdefault(prefix, set()).add(name)
    expected["objects."].discard("s3")
    expected["keyring."] -= {"previous_root", "s3"}
    expected["keyring.root."] = {"kind"}
    expected["backup."].discard("s3")
    assert expected.pop("streams.") == {"audiosocket", "rtpengine"}
    certified = {"tls_cert", "tls_key", "client_ca"}  # shown once
    assert shown.pop("streams.rtpengine.") == expected.pop("streams.rtpengine.") - certified
    assert shown == expected


@pytest.mark.parametrize("kind", ["pkcs11", "transit", "awskms"])
def test_the_commented_root_sections_of_the_shipped_file_show_their_defaults(kind):
    section = OPTIONAL[f"keyring.root.{kind}."]
    given = section(**commented(f"keyring.root.{kind}"))
    required = {name for name, field in section.model_fields.items() if field.is_required()}
    examples = {"pin", "pin_file", "namespace", "token_file", "ca_file", "endpoint", "access_key", "secret_key"}
    examples |= {"token"} - required
    for name, field in section.model_fields.items():
        if name not in required | examples:
            assert getattr(given, name) == field.default, name


def test_the_commented_s3_section_of_the_shipped_file_shows_its_defaults():
    shown = commented("objects.s3")
    for name in ("endpoint", "access_key", "secret_key"):  # examples: these have no default
        del shown[name]
    assert S3Section(**shown) == S3Section(bucket="callvault")


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({"server": {"port": 70000}}, "server.port"),
        ({"server": {"idle_timeout": "soon"}}, "server.idle_timeout"),
        ({"segments": {"concurrency": 0}}, "segments.concurrency"),
        ({"ingest": {"pause_max": "0s"}}, "ingest.pause_max"),
        ({"ingest": {"pause_max": "25h"}}, "ingest.pause_max"),
        ({"sweep": {"max_share": 1.5}}, "sweep.max_share"),
        ({"log": {"level": "LOUD"}}, "log.level"),
        ({"objects": {"kind": "s3", "s3": {}}}, "objects.s3.bucket"),
        ({"objects": {"kind": "tape"}}, "objects.kind"),
        ({"journal": "here"}, "journal"),
        ({"streams": {"audiosocket": {**LISTENER, "listen": "9019"}}}, "streams.audiosocket.listen"),
        ({"streams": {"audiosocket": {**LISTENER, "listen": "127.0.0.1:99999"}}}, "streams.audiosocket.listen"),
        ({"streams": {"audiosocket": {**LISTENER, "token": "cv_abc"}}}, "streams.audiosocket.token"),
        ({"streams": {"audiosocket": {**LISTENER, "tenant": "North Field"}}}, "streams.audiosocket.tenant"),
        ({"streams": {"rtpengine": {**LISTENER, "rate": 100}}}, "streams.rtpengine.rate"),
    ],
)
def test_an_error_names_section_and_key(document, where):
    with pytest.raises(ConfigError) as caught:
        parse(document)
    assert caught.value.message.startswith(f"{where}: ")


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({"sweeps": {}}, "sweeps"),
        ({"server": {"prot": 8080}}, "server.prot"),
        ({"objects": {"kind": "s3", "s3": {"bucket": "b", "buckets": "c"}}}, "objects.s3.buckets"),
        ({"base": "/tmp"}, "base"),
    ],
)
def test_an_unknown_setting_is_refused_by_name(document, where):
    with pytest.raises(ConfigError) as caught:
        parse(document)
    assert caught.value.message.startswith(f"{where}: ")


def test_an_error_repeats_no_secret():
    document = {"objects": {"kind": "s3", "s3": {"bucket": "b", "secret_key": ["hunter2"], "addressing": "hunter2"}}}
    with pytest.raises(ConfigError) as caught:
        parse(document)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "vault.example.org"])
def test_plain_http_is_refused_where_others_can_reach_it(host):
    with pytest.raises(ConfigError, match="plain HTTP"):
        parse({"server": {"host": host}})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_plain_http_is_fine_on_loopback(host):
    assert parse({"server": {"host": host}}).server.loopback


@pytest.mark.parametrize("lifted", [{"allow_plain_http": True}, {"tls_cert": "c.pem", "tls_key": "k.pem"}])
def test_tls_or_an_explicit_permission_lifts_the_refusal(lifted):
    assert parse({"server": {"host": "0.0.0.0", **lifted}}).server.host == "0.0.0.0"


@pytest.mark.parametrize("half", ["tls_cert", "tls_key"])
def test_half_a_tls_identity_is_refused(half):
    with pytest.raises(ConfigError, match="come together"):
        parse({"server": {half: "x.pem"}})


def test_s3_credentials_come_from_the_environment_and_win(tmp_path):
    path = write(tmp_path, '[objects]\nkind = "s3"\n[objects.s3]\nbucket = "calls"\naccess_key = "from-file"\n')
    environment = {"CALLVAULT_S3_ACCESS_KEY": "AK", "CALLVAULT_S3_SECRET_KEY": "SK"}
    s3 = load_config(path, environment=environment).objects.s3
    assert s3.access_key == "AK"
    assert s3.secret_key.get_secret_value() == "SK"
    assert load_config(path, environment={}).objects.s3.access_key == "from-file"


def test_the_secret_key_is_never_printed(tmp_path):
    path = write(tmp_path, '[objects]\nkind = "s3"\n[objects.s3]\nbucket = "calls"\n')
    config = load_config(path, environment={"CALLVAULT_S3_SECRET_KEY": "hunter2"})
    assert "hunter2" not in repr(config)


def test_environment_credentials_are_no_s3_section(tmp_path):
    config = load_config(write(tmp_path, ""), environment={"CALLVAULT_S3_SECRET_KEY": "hunter2"})
    assert config.objects.s3 is None


@pytest.mark.parametrize("document", [{"objects": {"kind": "s3"}}, {"objects": {"s3": {"bucket": "b"}}}])
def test_the_kind_s3_and_its_section_come_together(document):
    with pytest.raises(ConfigError, match="come together"):
        parse(document)


@pytest.mark.parametrize(
    ("text", "size"),
    [("512B", 512), ("64KiB", 64 << 10), ("8 MiB", 8 << 20), ("20GiB", 20 << 30), ("1TiB", 1 << 40)],
)
def test_sizes_take_binary_units(text, size):
    assert parse({"journal": {"max_bytes": text}}).journal.max_bytes == size


@pytest.mark.parametrize("text", ["0", "512", "0MiB", "-1MiB", "8MB", "1.5GiB", "lots", "", "MiB"])
def test_anything_else_is_no_size(text):
    with pytest.raises(ConfigError, match=r"journal\.max_bytes"):
        parse({"journal": {"max_bytes": text}})


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90d", timedelta(days=90)),
        ("1h30m", timedelta(minutes=90)),
        ("500ms", timedelta(milliseconds=500)),
        ("2w", timedelta(14)),
    ],
)
def test_durations_take_units(text, span):
    assert parse({"retention": {"default": text}}).retention.default == Period(span)
    assert parse({"sweep": {"max_jump": text}}).sweep.max_jump == span


def test_periods_take_months_and_years_of_the_calendar_too():
    retention = parse({"retention": {"default": "18mo", "floor": "1mo", "cap": "8y"}}).retention
    assert (retention.default, retention.floor, retention.cap) == (
        Period(months=18),
        Period(months=1),
        Period(months=96),
    )
    assert parse({}).retention.cap == Period(months=84)
    for name in ("release_grace", "flag_review", "export_window", "notice"):
        assert getattr(parse({"retention": {name: "1y1mo"}}).retention, name) == Period(months=13)
    for section, name in (("sweep", "max_jump"), ("retention", "backdating"), ("retention", "cohort_width")):
        with pytest.raises(ConfigError, match=rf"{section}\.{name}"):
            parse({section: {name: "1mo"}})


@pytest.mark.parametrize("text", ["90", "90 d", "-1d", "1.5h", "30m1h", "P90D", "1mo1y", ""])
def test_anything_else_is_no_duration(text):
    with pytest.raises(ConfigError, match=r"retention\.default"):
        parse({"retention": {"default": text}})


def test_a_segment_is_at_most_eight_mebibytes():
    assert parse({"segments": {"max_bytes": "8MiB"}}).segments.max_bytes == 8 << 20
    with pytest.raises(ConfigError, match="8MiB"):
        parse({"segments": {"max_bytes": "8388609B"}})


def test_paths_are_relative_to_the_file_and_default_below_data():
    config = parse({"data": "state", "journal": {"path": "fast/journal"}, "objects": {"path": "/mnt/objects"}})
    assert config.catalog_path == Path("/etc/callvault/state/catalog.db")
    assert config.journal_path == Path("/etc/callvault/fast/journal")
    assert config.objects_path == Path("/mnt/objects")
    assert config.replica_paths == tuple(Path(f"/etc/callvault/state/keyring-{letter}") for letter in "abc")
    assert config.file_root_path(config.keyring.root) == Path("/etc/callvault/state/root-keys")
    assert config.issuer_path == Path("/etc/callvault/state/issuer.pem")


def test_named_replicas_replace_the_default_ones():
    config = parse({"keyring": {"replicas": ["/a/keyring", "b"]}})
    assert config.replica_paths == (Path("/a/keyring"), Path("/etc/callvault/b"))


def test_a_missing_file_is_the_operators_error(tmp_path):
    with pytest.raises(ConfigError, match="no configuration") as caught:
        load_config(tmp_path / "absent.toml", environment={})
    assert caught.value.hint


def test_a_file_that_is_no_toml_is_the_operators_error(tmp_path):
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(write(tmp_path, "data = "), environment={})


def test_settings_cannot_be_changed_after_loading():
    config = parse({})
    with pytest.raises(ValueError, match="frozen"):
        config.server.port = 1


def test_the_catalogs_address_comes_from_the_environment_first_and_shows_no_password(tmp_path):
    path = write(tmp_path, '[catalog]\nurl = "postgresql://db.example/one"\n')
    config = load_config(path, environment={"CALLVAULT_CATALOG_URL": "postgresql://vault:hunter2@db.example/two"})
    assert config.catalog.url.get_secret_value().endswith("/two")
    assert config.catalog_path is None
    assert "hunter2" not in repr(config)


def test_a_catalog_is_a_file_or_a_database_and_not_both(tmp_path):
    path = write(tmp_path, '[catalog]\npath = "catalog.db"\n')
    with pytest.raises(ConfigError, match="exclude each other") as refused:
        load_config(path, environment={"CALLVAULT_CATALOG_URL": "postgresql://vault:hunter2@db.example/two"})
    assert "hunter2" not in str(refused.value)


TRANSIT = {"kind": "transit", "transit": {"address": "https://vault.example.org"}}
PKCS11 = {"kind": "pkcs11", "pkcs11": {"library": "/lib/p11.so", "token": "t"}}


@pytest.mark.parametrize(
    ("keyring", "where"),
    [
        ({"root": {"kind": "tape"}}, "keyring.root.kind"),
        ({"root": {"kind": "transit"}}, "keyring.root"),
        ({"root": {"kind": "file", "transit": TRANSIT["transit"]}}, "keyring.root"),
        ({"root": {"kind": "transit", "transit": {"address": "vault"}}}, "keyring.root.transit.address"),
        (
            {"root": {**TRANSIT, "transit": {**TRANSIT["transit"], "prefix": "Call Vault"}}},
            "keyring.root.transit.prefix",
        ),
        ({"root": {"kind": "composite", "composite": {"first": TRANSIT, "second": TRANSIT}}}, "keyring.root.composite"),
        ({"root": {"kind": "composite", "composite": {"first": TRANSIT}}}, "keyring.root.composite.second"),
        ({"root": TRANSIT, "previous_root": TRANSIT}, "keyring"),
        ({"root": {"file": {"path": "a"}}, "root_keys": "b"}, "keyring"),
        ({"root": {**PKCS11, "pkcs11": {**PKCS11["pkcs11"], "assurance": "total"}}}, "keyring.root.pkcs11.assurance"),
    ],
)
def test_a_root_section_that_contradicts_itself_is_refused(keyring, where):
    with pytest.raises(ConfigError) as caught:
        parse({"keyring": keyring})
    assert caught.value.message.startswith(f"{where}: ")


def test_credentials_for_root_keys_come_from_the_environment_and_stay_hidden(tmp_path):
    path = write(
        tmp_path,
        """
[keyring.root]
kind = "composite"
[keyring.root.composite.first]
kind = "transit"
[keyring.root.composite.first.transit]
address = "https://vault.example.org"
[keyring.root.composite.second]
kind = "pkcs11"
[keyring.root.composite.second.pkcs11]
library = "/lib/p11.so"
token = "t"
[keyring.previous_root]
kind = "transit"
[keyring.previous_root.transit]
address = "https://old.example.org"
token_file = "token"
""",
    )
    environment = {"CALLVAULT_PKCS11_PIN": "135790", "CALLVAULT_TRANSIT_TOKEN": "s.verysecret"}
    keyring = load_config(path, environment=environment).keyring
    assert keyring.root.composite.first.transit.token.get_secret_value() == "s.verysecret"
    assert keyring.root.composite.second.pkcs11.pin.get_secret_value() == "135790"
    assert keyring.previous_root.transit.token is None
    assert "135790" not in repr(keyring)
    assert "verysecret" not in repr(keyring)


@pytest.mark.parametrize("listen", ["0.0.0.0:9019", "192.0.2.1:9019", "[::]:9019", "pbx.example.org:9"])
@pytest.mark.parametrize("name", ["audiosocket", "rtpengine"])
def test_a_stream_listener_that_others_reach_needs_certificates(listen, name):
    with pytest.raises(ConfigError, match=rf"^streams\.{name}\.listen: .*client_ca"):
        parse({"streams": {name: {**LISTENER, "listen": listen}}})
    certified = {"tls_cert": "cert.pem", "tls_key": "key.pem", "client_ca": "ca.pem"}
    assert getattr(parse({"streams": {name: {**LISTENER, "listen": listen, **certified}}}).streams, name) is not None


@pytest.mark.parametrize("missing", ["tls_cert", "tls_key", "client_ca"])
def test_a_stream_listener_has_all_of_its_certificates_or_none(missing):
    certified = {"tls_cert": "cert.pem", "tls_key": "key.pem", "client_ca": "ca.pem"}
    del certified[missing]
    with pytest.raises(ConfigError, match="come together"):
        parse({"streams": {"audiosocket": {**LISTENER, **certified}}})


@pytest.mark.parametrize("listen", ["127.0.0.1:9019", "127.9.9.9:1", "localhost:9019", "[::1]:9019"])
def test_a_stream_listener_on_loopback_needs_no_certificates(listen):
    settings = parse({"streams": {"audiosocket": {**LISTENER, "listen": listen}}}).streams.audiosocket
    assert ":".join(map(str, settings.address)) == listen.replace("[", "").replace("]", "")


UNITLESS = [90, 30.5, True, False, 0, "90", "4096", "", None, ["90d"], timedelta(days=90)]


@pytest.mark.parametrize("value", [value for value in UNITLESS if value is not None])
@pytest.mark.parametrize(
    ("section", "key", "form"),
    [
        ("retention", "default", "90d"),
        ("retention", "release_grace", "90d"),
        ("sweep", "max_jump", "90d"),
        ("keyring", "lease", "90d"),
        ("server", "max_recording_bytes", "8MiB"),
        ("journal", "disk_reserve", "8MiB"),
    ],
)
def test_a_number_without_a_unit_is_neither_duration_nor_size(section, key, form, value):
    with pytest.raises(ConfigError, match=f"{section}.{key}: ") as refused:
        parse({section: {key: value}})
    assert form in refused.value.message
    assert "input" not in refused.value.message.lower()


@pytest.mark.parametrize("key", ["default", "cap"])
def test_nothing_is_kept_for_no_time(key):
    with pytest.raises(ConfigError, match="longer than nothing"):
        parse({"retention": {key: "0s"}})


@pytest.mark.parametrize("body", [AddTenant, ChangeTenant])
@pytest.mark.parametrize("name", ["retention", "metadata_retention"])
def test_the_api_takes_the_same_durations(body, name):
    sound = {"id": "a", "name": "a", "controller": "a", "contact": "a"} if body is AddTenant else {}
    assert getattr(body.model_validate(sound | {name: "90d"}), name) == Period(timedelta(days=90))
    assert getattr(body.model_validate(sound | {name: "2y"}), name) == Period(months=24)
    assert getattr(body.model_validate(sound | {name: None}), name) is None
    for value in [*(value for value in UNITLESS if value is not None), "0s", "0d0h"]:
        with pytest.raises(ValidationError, match="90d"):
            body.model_validate(sound | {name: value})
