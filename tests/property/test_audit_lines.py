"""An exported entry is the JSON of its members, byte for byte as a JSON library writes them."""

import json
from datetime import UTC, datetime
from operator import itemgetter

from hypothesis import example, given
from hypothesis import strategies as st
from pydantic_core import to_json

from tests.helpers.catalogs import NOW, event
from vault.certificates.audit_chain import AuditHead, extend_chain, instant
from vault.storage.catalog.rows import EXPORTED, from_audit, to_audit_lines

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
MAYBE = st.none() | TEXT
NUMBER = st.integers(-(1 << 53) + 1, (1 << 53) - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUE = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
EVENTS = st.builds(
    event,
    TEXT,
    actor=TEXT,
    outcome=TEXT,
    role=MAYBE,
    tenant=MAYBE,
    purpose=MAYBE,
    request_id=MAYBE,
    target=MAYBE,
    detail=st.dictionaries(TEXT, VALUE, max_size=3),
)
INSTANTS = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@example(events=[event(detail={"a": [1e-7, 1e21, -0.0, 5e20], "b": "e-mail \x00\x7f\u2028"})], at=NOW, seq=0)
@given(events=st.lists(EVENTS, min_size=1, max_size=4), at=INSTANTS, seq=st.integers(0, (1 << 53) - 9))
def test_an_exported_entry_has_the_bytes_that_its_members_have_in_json(events, at, seq):
    entries = extend_chain(AuditHead(seq=seq, sha256="ab" * 32), events, at=at)
    rows = [from_audit(entry) for entry in entries]
    expected = [
        to_json(
            {
                "seq": entry.seq,
                "at": instant(entry.at),
                "event": entry.event.event,
                "actor": entry.event.actor,
                "role": entry.event.role,
                "tenant": entry.event.tenant,
                "outcome": entry.event.outcome,
                "purpose": entry.event.purpose,
                "request_id": entry.event.request_id,
                "target": entry.event.target,
                "detail": json.loads(row["detail"]),
                "previous_sha256": entry.previous_sha256,
                "sha256": entry.sha256,
            }
        )
        for entry, row in zip(entries, rows, strict=True)
    ]
    lines = to_audit_lines(map(itemgetter(*EXPORTED), rows))
    assert [(line.seq, line.text.encode()) for line in lines] == [
        (entry.seq, each) for entry, each in zip(entries, expected, strict=True)
    ]
