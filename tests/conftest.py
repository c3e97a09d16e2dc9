"""Fixtures that several test modules share, and how much of the long tests a run does."""

import functools
import gc
import os
from pathlib import Path

import botocore.session
import pytest
from aiobotocore import httpsession
from hypothesis import settings
from prometheus_client import Counter

from tests.helpers import catalog_template, scratch, soak
from tests.helpers.app import furnished
from tests.helpers.openbao import fragile_openbao, openbao
from tests.helpers.postgres import postgres, postgres_settings, postgres_template
from tests.helpers.seaweed import seaweed
from tests.helpers.softhsm import softhsm
from vault.storage.catalog import postgres as postgres_engines
from vault.storage.catalog import schema
from vault.storage.catalog import sqlite as sqlite_engines
from vault.telemetry import Metrics

__all__ = [
    "fragile_openbao",
    "furnished",
    "openbao",
    "postgres",
    "postgres_settings",
    "postgres_template",
    "seaweed",
    "softhsm",
]

PROPERTIES = Path(__file__).with_name("property")

settings.register_profile("test", max_examples=30, deadline=None)
settings.register_profile("soak", max_examples=300, deadline=None)
settings.load_profile("soak" if soak.SOAK else "test")

# A soak goes through a disk, and waits for it.
if not soak.SOAK:
    scratch.in_memory()


@pytest.fixture(autouse=True, scope="session")
def done_once():
    """Do once in a run what every new catalog and every new client of AWS would do again alike."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "upgrade", catalog_template.upgrade)
        for database in (postgres_engines, sqlite_engines):
            for name in ("writing_engine", "reading_engine"):
                patch.setattr(database, name, catalog_template.compiled_once(getattr(database, name)))
        patch.setattr(Metrics, "__init__", declared(Metrics.__init__))
        patch.setattr(botocore.session, "create_loader", functools.cache(botocore.session.create_loader))
        patch.setattr(httpsession, "get_cert_path", authorities(httpsession.get_cert_path))
        yield


def authorities(path_of):
    """Have clients of AWS trust no public authority, which none here meets: each would read 140 certificates."""

    public = {True, os.environ.get("AWS_CA_BUNDLE"), os.environ.get("REQUESTS_CA_BUNDLE")}

    def named(verify):
        return None if verify in public else path_of(verify)

    return named


def declared(init):
    """Have a label set of a counter that was not declared with it fail the test that counts it."""

    def begun(self, registry):
        init(self, registry)
        for name, each in vars(self).items():
            # Entries of the audit trail are named freely where the catalog itself is tested.
            if isinstance(each, Counter) and name != "audit_events":
                each.labels = functools.partial(known, name, each, type(each).labels)

    def known(name, counter, labels, *values):
        assert tuple(map(str, values)) in counter._metrics, f"{name} is counted with {values}, which it never declared"
        return labels(counter, *values)

    return begun


def pytest_collection_modifyitems(items):
    for item in items:
        if PROPERTIES in item.path.parents:
            item.add_marker("soak")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    # Thousands of items and modules live until the end: looking through them for garbage finds none, now and later.
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)


def pytest_terminal_summary(terminalreporter):
    if not soak.SOAK:
        terminalreporter.write_line(f"long tests were sampled; to draw the same again: CALLVAULT_SEED={soak.SEED}")
