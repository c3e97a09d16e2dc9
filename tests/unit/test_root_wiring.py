"""From [keyring.root] to a provider."""

import os
from pathlib import Path

import pytest

from vault.config import parse_config
from vault.errors import ConfigError
from vault.keystore.root.file import FileRootKeys
from vault.keystore.root.pairs import CompositeRootKeys, MovingRootKeys
from vault.model import Assurance
from vault.wiring import SystemClock
from vault.wiring.adapters import root_directories, root_keys

TRANSIT = {"kind": "transit", "transit": {"address": "https://vault.example.org", "token": "s.secret"}}
PKCS11 = {"kind": "pkcs11", "pkcs11": {"library": "/lib/p11.so", "token": "t", "pin": "hunter2"}}
KMS = {"kind": "awskms", "awskms": {"region": "eu-west-2"}}


def config_of(**keyring):
    return parse_config({"keyring": keyring}, base=Path("/etc/callvault"))


def provider(**keyring):
    return root_keys(config_of(**keyring), SystemClock(), os.urandom)


def test_without_a_section_root_keys_are_files_below_data():
    assert isinstance(provider(), FileRootKeys)
    assert root_directories(config_of()) == [Path("/etc/callvault/data/root-keys")]
    assert root_directories(config_of(root_keys="keys")) == [Path("/etc/callvault/keys")]
    assert root_directories(config_of(root={"file": {"path": "/k"}})) == [Path("/k")]
    assert root_directories(config_of(root=TRANSIT)) == []


@pytest.mark.parametrize(
    ("root", "name", "assurance"),
    [
        (TRANSIT, "transit", Assurance.DEVICE),
        (PKCS11, "pkcs11", Assurance.HSM),
        ({**PKCS11, "pkcs11": {**PKCS11["pkcs11"], "assurance": "device"}}, "pkcs11", Assurance.DEVICE),
        (KMS, "awskms", Assurance.DEVICE),
        ({"kind": "file"}, "file", Assurance.BEST_EFFORT),
    ],
)
def test_each_kind_is_what_it_says(root, name, assurance):
    made = provider(root=root)
    assert (made.name, made.assurance) == (name, assurance)


def test_a_composite_is_as_good_as_its_better_half():
    made = provider(root={"kind": "composite", "composite": {"first": {"kind": "file"}, "second": PKCS11}})
    assert isinstance(made, CompositeRootKeys)
    assert (made.name, made.assurance) == ("file+pkcs11", Assurance.HSM)


def test_while_a_vault_moves_it_is_as_good_as_the_worse_provider():
    made = provider(root=PKCS11, previous_root={"kind": "file"})
    assert isinstance(made, MovingRootKeys)
    assert (made.name, made.assurance) == ("pkcs11 or file", Assurance.BEST_EFFORT)


def test_a_missing_extra_says_what_to_install(monkeypatch):
    monkeypatch.setattr("vault.wiring.adapters.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        provider(root=PKCS11)
    assert caught.value.hint == "pip install 'callvault[pkcs11]'"


@pytest.mark.parametrize(
    ("kind", "section", "variable"),
    [
        ("pkcs11", {"library": "/l", "token": "t"}, "CALLVAULT_PKCS11_PIN"),
        ("transit", {"address": "https://v"}, "CALLVAULT_TRANSIT_TOKEN"),
    ],
)
def test_a_missing_credential_is_the_operators_error(kind, section, variable):
    with pytest.raises(ConfigError) as caught:
        provider(root={"kind": kind, kind: section})
    assert variable in caught.value.hint


def test_no_credential_is_shown():
    for root in (TRANSIT, PKCS11):
        made = provider(root=root)
        for part in (made, *vars(made).values()):
            assert "s.secret" not in repr(vars(part) if hasattr(part, "__dict__") else part)
            assert "hunter2" not in repr(vars(part) if hasattr(part, "__dict__") else part)
