"""Every series that is counted, and every one that an alert is raised on, is there before its first event."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from vault import telemetry
from vault.server.connections.tls import _Merged
from vault.telemetry import Metrics

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()
_SELECTOR = re.compile(r"(callvault_\w+)(?:\{([^}]*)\})?")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_EVENT = re.compile(
    r"(?:access|admin|case|certificate|flag|hold|keyring|policy|recorder|recording|restore|shred|sweep)\.[a-z_]+"
)
_NO_EVENTS = {"recording.id", "hold.release_"}


@cache
def samples():
    """Return what a vault tells that has done nothing yet: names with labels and values."""
    registry = CollectorRegistry()
    Metrics(registry).catalog.aged_by(lambda: 0.0)
    return [sample for family in registry.collect() for sample in family.samples]


@pytest.fixture(scope="module")
def sources():
    return [ast.parse(path.read_text()) for path in sorted((ROOT / "vault" / "services").rglob("*.py"))]


def rules():
    """Return the lines of the page's alerts."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    [block] = [each for each in blocks if "callvault_sweep_overdue_seconds >" in each]
    return [line for line in block.splitlines() if line and not line.startswith("#")]


def test_every_metric_of_the_page_exists():
    families = {re.sub(r"_(total|bucket|count|sum|created)$", "", sample.name) for sample in samples()}
    registry = CollectorRegistry()
    Metrics(registry)
    families |= {family.name for family in (*registry.collect(), *_Merged([]).collect())} | gauges()
    for name in set(re.findall(r"callvault_\w+", PAGE)):
        assert re.sub(r"_(total|bucket|count|sum)$", "", name) in families, name


def gauges():
    """Return the gauges with labels: their series come with what they measure."""
    catalog = Metrics(CollectorRegistry()).catalog
    return {family.name for family in catalog._registry.collect()}


def test_an_alert_sees_the_first_event_of_every_series_that_it_counts():
    counted = 0
    for rule in rules():
        for name, selected in _SELECTOR.findall(rule):
            if not re.search(r"_(total|count|bucket)$", name):
                continue
            wanted = dict(_LABEL.findall(selected))
            there = [each for each in samples() if each.name == name and wanted.items() <= each.labels.items()]
            assert there, f"{name}{{{selected}}} is in an alert, and begins with its first event"
            assert all(each.value == 0 for each in there)
            counted += 1
    assert counted > 5


def test_every_label_set_of_a_counter_is_there_at_zero():
    for metric in vars(Metrics(CollectorRegistry())).values():
        if isinstance(metric, Counter | Histogram):
            assert metric._labelnames == () or metric._metrics, metric


def test_every_entry_that_the_audit_trail_can_have_is_counted(sources):
    named = {
        node.value
        for source in sources
        for node in ast.walk(source)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _EVENT.fullmatch(node.value)
    }
    assert named - _NO_EVENTS <= set(telemetry.AUDITED)


def test_every_dialect_is_counted():
    named = set()
    for path in (*(ROOT / "vault" / "server").rglob("*.py"), *(ROOT / "vault" / "protocol").rglob("*.py")):
        text = path.read_text()
        named |= set(re.findall(r'^(?:_?|_[A-Z]+_)DIALECT: Final = "(\w+)"', text, re.MULTILINE))
        if "protocol" in path.parts:
            named |= set(re.findall(r'^    name(?:: ClassVar\[str\])? = "(\w+)"', text, re.MULTILINE))
    assert named == set(telemetry.DIALECTS)


def test_the_text_of_a_scrape_is_the_librarys(monkeypatch):
    metrics = Metrics(CollectorRegistry())
    metrics.catalog.aged_by(lambda: 0.25)
    odd = Gauge("odd", 'says "so" \\ and\nmore', ["of", "in"], registry=metrics.registry)
    assert metrics.exposition.text() == generate_latest(metrics.registry)
    metrics.ingest_ack.observe(0.3)
    metrics.journal_commit.observe(2e-7)
    metrics.denials.labels("role").inc(1e21)
    metrics.catalog.recordings.labels("sealed").set(12_345_678)
    for number, value in enumerate((float("nan"), float("inf"), -float("inf"), -0.5, 1e-9, 3)):
        odd.labels(f'a"\\\n\u2028\x85\x0b{number}', "\u00e9").set(value)
    for _ in range(2):
        assert metrics.exposition.text() == generate_latest(metrics.registry)
        metrics.catalog.aged_by(lambda: 1e9)
    said = metrics.exposition.text().decode()
    assert "_created" not in said
    assert "callvault_recordings{" not in said
    # Nothing is written anew but values.
    monkeypatch.setattr("vault.telemetry.generate_latest", None)
    metrics.ingest_ack.observe(0.1)
    assert b"callvault_ingest_ack_seconds_count 2.0\n" in metrics.exposition.text()
