import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from tests.helpers.catalogs import NOW, event
from vault.certificates.audit_chain import (
    GENESIS,
    AuditHead,
    AuditPart,
    canonical,
    extend_chain,
    part_of,
    verify_chain,
    verify_part,
)
from vault.errors import IntegrityError, Invalid
from vault.model import AuditEntry


@pytest.fixture
def entries() -> list[AuditEntry]:
    events = [
        event("access.play", target=f"rec_{n}", detail={"n": n, "nested": {"z": 1, "a": ["x"]}}) for n in range(6)
    ]
    return extend_chain(GENESIS, events, at=NOW)


def head_of(entry: AuditEntry) -> AuditHead:
    return AuditHead(seq=entry.seq, sha256=entry.sha256)


def test_hash_is_sha256_of_the_previous_hash_and_the_canonical_entry():
    at = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
    [entry] = extend_chain(GENESIS, [event("sweep.started", tenant="acme", detail={"b": 2, "a": None})], at=at)
    body = (
        '{"actor":"vault","at":"2026-03-01T09:30:00.000000Z","detail":{"a":null,"b":2},"event":"sweep.started",'
        '"outcome":"ok","purpose":null,"request_id":null,"role":null,"seq":1,"target":null,"tenant":"acme"}'
    )
    assert entry.sha256 == hashlib.sha256(bytes(32) + body.encode()).hexdigest()
    assert entry.previous_sha256 == "00" * 32


def test_every_field_of_the_event_is_covered():
    fields = {"event": "x", "actor": "x", "outcome": "x", "role": "x", "tenant": "x", "purpose": "x"}
    fields |= {"request_id": "x", "target": "x", "detail": {"x": 1}}
    plain = canonical(event(), seq=1, at=NOW)
    for name, value in fields.items():
        assert canonical(event(**{name: value}) if name != "event" else event("x"), seq=1, at=NOW) != plain
    assert canonical(event(), seq=2, at=NOW) != plain
    assert canonical(event(), seq=1, at=NOW + timedelta(microseconds=1)) != plain


def test_time_is_hashed_as_utc_whatever_zone_it_was_given_in():
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5)))
    assert canonical(event(), seq=1, at=elsewhere) == canonical(event(), seq=1, at=NOW)


def test_untouched_chain_verifies_and_returns_its_head(entries):
    assert verify_chain(entries) == head_of(entries[-1])
    assert verify_chain([]) == GENESIS


def test_chain_verifies_in_pieces(entries):
    middle = verify_chain(entries[:3])
    assert verify_chain(entries[3:], after=middle) == head_of(entries[-1])


def test_chain_survives_a_round_trip_through_json(entries):
    again = [
        replace(entry, event=replace(entry.event, detail=json.loads(json.dumps(entry.event.detail))))
        for entry in entries
    ]
    assert verify_chain(again) == head_of(entries[-1])


@pytest.mark.parametrize(
    "change",
    [
        {"actor": "somebody-else"},
        {"outcome": "denied"},
        {"target": "rec_other"},
        {"detail": {"n": 2, "nested": {"z": 1, "a": ["y"]}}},
    ],
)
def test_edited_event_is_detected(entries, change):
    entries[2] = replace(entries[2], event=replace(entries[2].event, **change))
    with pytest.raises(IntegrityError, match="entry 3 does not match its hash"):
        verify_chain(entries)


def test_moved_time_is_detected(entries):
    entries[2] = replace(entries[2], at=entries[2].at + timedelta(microseconds=1))
    with pytest.raises(IntegrityError, match="entry 3"):
        verify_chain(entries)


def test_edited_and_rehashed_entry_is_detected_at_its_successor(entries):
    forged = extend_chain(head_of(entries[1]), [replace(entries[2].event, actor="nobody")], at=entries[2].at)
    entries[2] = forged[0]
    with pytest.raises(IntegrityError, match="entry 4 does not continue entry 3"):
        verify_chain(entries)


def test_deleted_entry_is_detected(entries):
    del entries[2]
    with pytest.raises(IntegrityError, match="entry 4 follows entry 2"):
        verify_chain(entries)


def test_deleted_first_entry_is_detected(entries):
    with pytest.raises(IntegrityError, match="begins with audit entry 2, not with entry 1"):
        verify_chain(entries[1:])


def test_a_trail_with_gaps_says_how_a_part_of_it_is_checked(entries):
    with pytest.raises(IntegrityError) as refused:
        verify_chain(entries[2:])
    assert "--part" in refused.value.hint
    assert "--after NUMBER:HASH" in refused.value.hint


@pytest.fixture
def trail() -> list[AuditEntry]:
    tenants = [None, "acme", "acme", "other", "acme", "other", "acme"]
    return extend_chain(GENESIS, [event("access.play", tenant=each) for each in tenants], at=NOW)


def of(tenant, trail):
    return [entry for entry in trail if entry.event.tenant == tenant]


def test_one_tenants_part_is_verified_as_what_it_is(trail):
    part = of("acme", trail)
    assert part_of(part) == "acme"
    assert verify_part(part) == AuditPart(entries=4, links=1, head=head_of(trail[6]))
    assert verify_part(part, expected=head_of(trail[2])).entries == 4
    with pytest.raises(IntegrityError, match="entry 4 is not in this part"):
        verify_part(part, expected=head_of(trail[3]))
    assert part_of(trail) is part_of(trail[1:]) is part_of([]) is part_of(of(None, trail)) is None


def test_the_beginning_of_the_trail_is_never_one_tenants_part():
    assert part_of(extend_chain(GENESIS, [event(tenant="acme")] * 3, at=NOW)) is None


def test_what_was_changed_in_a_part_is_named(trail):
    part = of("acme", trail)
    for place in range(len(part)):
        for damage in ({"event": replace(part[place].event, actor="x")}, {"at": NOW - timedelta(1)}, {"seq": 99}):
            with pytest.raises(IntegrityError, match=f"entry ({part[place].seq}|{damage.get('seq')}) "):
                verify_part([*part[:place], replace(part[place], **damage), *part[place + 1 :]])
    rehashed = extend_chain(GENESIS, [event("x", tenant="acme")] * 3, at=NOW)[2]
    with pytest.raises(IntegrityError, match="entry 3 does not continue entry 2"):
        verify_part([part[0], rehashed, *part[2:]])
    with pytest.raises(IntegrityError, match="entry 2 follows entry 3"):
        verify_part([part[1], part[0]])
    with pytest.raises(IntegrityError, match="entry 3 is not the one published"):
        verify_part([part[1]], expected=AuditHead(seq=3, sha256="00" * 32))


def test_reordered_entries_are_detected(entries):
    entries[2], entries[3] = entries[3], entries[2]
    with pytest.raises(IntegrityError, match="entry 4 follows entry 2"):
        verify_chain(entries)


def test_swapped_and_renumbered_entries_are_detected(entries):
    entries[2], entries[3] = replace(entries[3], seq=3), replace(entries[2], seq=4)
    with pytest.raises(IntegrityError, match="entry 3"):
        verify_chain(entries)


def test_inserted_entry_is_detected(entries):
    extra = extend_chain(head_of(entries[2]), [event("access.export")], at=NOW)
    with pytest.raises(IntegrityError, match="entry 4 follows entry 4"):
        verify_chain([*entries[:3], *extra, *entries[3:]])


def test_cut_off_tail_is_detected_against_a_published_head(entries):
    published = head_of(entries[-1])
    assert verify_chain(entries[:-1]) == head_of(entries[-2])
    with pytest.raises(IntegrityError, match="ends at entry 5, before the published entry 6"):
        verify_chain(entries[:-1], expected=published)


def test_rewritten_trail_is_detected_against_a_published_head(entries):
    published = head_of(entries[3])
    rewritten = extend_chain(GENESIS, [replace(entry.event, actor="x") for entry in entries], at=NOW)
    assert verify_chain(rewritten)
    with pytest.raises(IntegrityError, match="entry 4 is not the one published"):
        verify_chain(rewritten, expected=published)
    assert verify_chain(entries, expected=published) == head_of(entries[-1])


@pytest.mark.parametrize("detail", [{"at": NOW}, {"n": 1 << 60}, {"n": float("nan")}, {"s": "\ud800"}, {1: "x"}])
def test_detail_that_is_not_plain_json_is_refused(detail):
    with pytest.raises(Invalid, match="no canonical JSON"):
        extend_chain(GENESIS, [event(detail=detail)], at=NOW)
