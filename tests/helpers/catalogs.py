"""Values for tests of the catalog, and a clock that moves a second with every look."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from vault.certificates.batch import Entries, Group
from vault.format.names import object_below, recording_prefix
from vault.ids import CertificateId, HoldId, NodeId, RecordingId, TenantId, TokenId, id_bytes, prefixed, uuid7
from vault.model import (
    MANIFEST_INDEX,
    Assurance,
    AuditEvent,
    CertificateStatus,
    Codec,
    Cohort,
    Container,
    Content,
    Coordinate,
    Examined,
    Hold,
    HoldKind,
    HoldState,
    Media,
    MetadataChange,
    Part,
    Recording,
    RecordingState,
    RetentionChange,
    Role,
    SegmentRef,
    ShredReceipt,
    StoredCertificate,
    Tenant,
    Token,
)
from vault.ports.audit import AuditQuery
from vault.ports.catalog import Catalog
from vault.ports.cluster import Node
from vault.ports.erasures import Erasure, ErasureBasis, ErasureId, ErasureOutcome, ErasureState
from vault.ports.holds import Alert
from vault.ports.policies import PolicyPreview, PolicyRequest, PolicyState
from vault.ports.recordings import RecordingQuery, Reindexed
from vault.ports.repeats import Keyed
from vault.ports.revision import Revision, T
from vault.ports.shreds import BatchEntries, CertificateBatch, Shred, SweepOverride

NOW = datetime(2026, 3, 1, 9, 30, 0, 123456, tzinfo=UTC)
ACME = TenantId("acme")
OTHER = TenantId("other-college")
PERIOD = 20_600
CHANGE = MetadataChange(request="pol_" + "0" * 32, through=24_320, retention="1d500ms")
RETENTION_CHANGE = RetentionChange(
    request="pol_" + "1" * 32, through=NOW, retention="6mo", since=NOW, floor="1d", backdating_seconds=604_800.0
)

_numbers = itertools.count(1)


@contextmanager
def at_commits(act: Callable[[sa.Connection], None]) -> Iterator[None]:
    """Call `act` before every commit of every database, inside the block."""
    sa.event.listen(sa.Engine, "commit", act)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "commit", act)


class SteppingClock:
    """A second passes with every look."""

    def __init__(self) -> None:
        self._looks = 0

    def now(self) -> datetime:
        self._looks += 1
        return NOW + timedelta(seconds=self._looks)

    def monotonic(self) -> float:
        return float(self._looks)


def becomes(after: T, *audit: AuditEvent) -> Revision[T]:
    """Return the revision that makes this of a row, whatever it was."""
    return lambda _: (after, audit)


NODE = NodeId("node_" + "1" * 32)


def node(**changes: Any) -> Node:
    return replace(Node(id=NODE, name="one:/journal", started_at=NOW, seen_at=NOW), **changes)


def new_id(prefix: str) -> str:
    """Return an id; later calls give greater ones."""
    number = next(_numbers)
    return prefixed(prefix, uuid7(unix_ms=1_772_000_000_000 + number, entropy=number.to_bytes(10, "big")))


def cohort(*, tenant: TenantId = ACME, part: Part = Part.AUDIO, period: int = PERIOD) -> Cohort:
    return Cohort(tenant=tenant, part=part, period=period, generation=3)


def recording(*, tenant: TenantId = ACME, period: int = PERIOD, **changes: Any) -> Recording:
    number = next(_numbers)
    fresh = Recording(
        id=RecordingId(new_id("rec")),
        tenant=tenant,
        call_token=f"call-{number}",
        state=RecordingState.OPEN,
        state_reason=None,
        audio=Coordinate(cohort=cohort(tenant=tenant, period=period), leaf=number),
        metadata=Coordinate(cohort=cohort(tenant=tenant, part=Part.METADATA, period=24_314), leaf=number + 1),
        media=Media(
            container=Container.WAV, codec=Codec.PCMU, rate=8000, channels=2, channel_map=("caller", "call,ee \u00e9")
        ),
        created_at=NOW,
        started_at=NOW - timedelta(seconds=2),
        ended_at=None,
        retain_until=NOW + timedelta(days=90),
        retention_class="recording",
        stored_bytes=0,
        sealed_facts=b"\x00sealed\xff" * 20,
    )
    return replace(fresh, **changes)


def segment(of: Recording, index: int = 0, *, attempt: str = "a1", length: int = 1000) -> SegmentRef:
    attempt = "" if index == MANIFEST_INDEX else attempt.ljust(32, "0")
    return SegmentRef(
        recording=of.id,
        index=index,
        attempt=attempt,
        name=object_below(recording_prefix(of.tenant, of.audio.cohort.period, of.id), index, attempt),
        offset=max(index, 0) * length,
        length=0 if index == MANIFEST_INDEX else length,
        object_bytes=length + 100,
        sha256=f"{index + 1:064x}",
    )


def event(name: str = "recording.started", **changes: Any) -> AuditEvent:
    return replace(AuditEvent(event=name, actor="vault", outcome="ok", detail={"bytes": 12, "why": None}), **changes)


def hold(*recordings: Recording, **changes: Any) -> Hold:
    fresh = Hold(
        id=HoldId(new_id("hold")),
        tenant=ACME,
        kind=HoldKind.LEGAL,
        matter="MATTER-1",
        reason="a claim is expected",
        authority="general counsel",
        owner="compliance",
        state=HoldState.ACTIVE,
        created_at=NOW,
        review_at=NOW + timedelta(days=180),
        recordings=tuple(one.id for one in recordings),
    )
    return replace(fresh, **changes)


def alert(of: Recording, flagged: Hold, **changes: Any) -> Alert:
    made = Alert(
        id=new_id("msg"),
        tenant=flagged.tenant,
        recording=of.id,
        hold=flagged.id,
        created_at=NOW,
        body='{"type":"recording.flagged"}',
        next_at=NOW,
    )
    return replace(made, **changes)


def erasure(*recordings: Recording, **changes: Any) -> Erasure:
    fresh = Erasure(
        id=ErasureId(new_id("era")),
        tenant=ACME,
        basis=ErasureBasis.ART17,
        case_reference="DSR-1",
        queue=False,
        state=ErasureState.REQUESTED,
        requested_by="tok_ann",
        requested_at=NOW,
        recordings={one.id: ErasureOutcome.PENDING for one in recordings},
    )
    return replace(fresh, **changes)


def shred(**changes: Any) -> Shred:
    fresh = Shred(id=new_id("shr"), intended_at=NOW, trigger="sweep", due_through=PERIOD)
    return replace(fresh, **changes)


def receipt(of: Shred) -> ShredReceipt:
    return ShredReceipt(
        intent_id=of.id,
        epoch_destroyed=4,
        epoch_live=5,
        root_version_destroyed="v4",
        provider="file",
        assurance=Assurance.BEST_EFFORT,
        replicas=2,
        unrecoverable_at=NOW,
        caches_clear_at=NOW + timedelta(seconds=15),
    )


def certificate(
    of: Recording, status: CertificateStatus = CertificateStatus.PROVISIONAL, **changes: Any
) -> StoredCertificate:
    fresh = StoredCertificate(
        id=CertificateId(f"cert_{_STAMP}70008{next(_SERIAL):015x}"),
        recording=of.id,
        tenant=of.tenant,
        status=status,
        supersedes=None,
        issued_at=NOW,
    )
    return replace(fresh, **changes)


FORM = b"f" * 32
_STAMP = f"{int(NOW.timestamp() * 1000):012x}"
_SERIAL = itertools.count()


def batch_of(certificates: Sequence[StoredCertificate]) -> tuple[CertificateBatch, BatchEntries]:
    """A batch of these certificates, which have one status; nobody signed it."""
    batch = CertificateBatch(
        id=f"bat_{_STAMP}70008{next(_SERIAL):015x}", issued_at=NOW, statement="eyJ.e30.sig", leaves=bytes(32)
    )
    groups = [Group(each.tenant, each.parts, FORM, each.supersedes is not None) for each in certificates]
    places = [
        (number, b"".join(id_bytes(name) for name in (each.id, each.recording, each.supersedes) if name))
        for number, each in enumerate(certificates)
    ]
    [status] = {each.status for each in certificates} or {CertificateStatus.PROVISIONAL}
    return batch, BatchEntries(batch=batch.id, issued_at=NOW, status=status, entries=Entries(groups, places))


async def certify(
    catalog: Catalog, certificates: Sequence[StoredCertificate], *, audit: Sequence[AuditEvent] = ()
) -> list[StoredCertificate]:
    """Store them in a batch of their own; return them as they stand in it."""
    batch, entries = batch_of(certificates)
    await catalog.certify(batch, entries, forms={FORM: "{}"}, audit=audit)
    return [*entries.certificates()]


def tenant(name: str = "acme", **changes: Any) -> Tenant:
    fresh = Tenant(id=TenantId(name), name=name, controller="Acme plc", contact="dpo@acme.example", created_at=NOW)
    return replace(fresh, **changes)


def token(**changes: Any) -> Token:
    fresh = Token(
        id=TokenId(new_id("tok")),
        name="pbx",
        role=Role.RECORDER,
        tenant=ACME,
        secret_sha256="ab" * 32,
        created_at=NOW,
        sealed_secret=b"\x01sealed",
    )
    return replace(fresh, **changes)


def policy_request(**changes: Any) -> PolicyRequest:
    fresh = PolicyRequest(
        id=new_id("pol"),
        tenant=ACME,
        through=24_320,
        metadata_retention="1d500ms",
        state=PolicyState.REQUESTED,
        preview=PolicyPreview(changed=3, earlier=2, later=1, held=1),
        requested_by="ann",
        requested_role=Role.DPO,
        requested_at=NOW,
    )
    return replace(fresh, **changes)


def override(**changes: Any) -> SweepOverride:
    fresh = SweepOverride(id=new_id("ovr"), through=NOW, reason="clock was wrong", requested_by="ann", requested_at=NOW)
    return replace(fresh, **changes)


def examined(**changes: Any) -> Examined:
    fresh = Examined(
        media=Media(container=Container.WAV, codec=Codec.STREAM),
        content=Content.TEXT,
        recorder=TokenId("tok_" + "7" * 32),
    )
    return replace(fresh, **changes)


async def finish(
    catalog: Catalog, one: Recording, state: RecordingState = RecordingState.SEALED, **changes: Any
) -> None:
    given: dict[str, Any] = {
        "reason": None,
        "ended_at": NOW + timedelta(minutes=5),
        "stored_bytes": 1000,
        "objects": [segment(one), segment(one, MANIFEST_INDEX)],
    }
    await catalog.finish_recording(one.id, state=state, **{**given, **changes})


async def sealed(catalog: Catalog, **changes: Any) -> Recording:
    one = recording(**changes)
    await catalog.create_recording(one)
    await finish(catalog, one)
    return await catalog.recording(one.id)


async def call_everything(catalog: Catalog) -> None:
    """Use every method of the port at least once, with every filter."""
    one = recording()
    audit = [event()]
    await catalog.reserve_leaves(one.audio.cohort, 64)
    await catalog.reserve_leaves(one.audio.cohort, 64)
    await catalog.create_recording(one, audit=audit)
    await catalog.update_media(one)
    await catalog.recording(one.id)
    await catalog.recording(one.id, tenant=ACME)
    await catalog.recording_by_call(ACME, [one.call_token])
    await catalog.open_recordings()
    await catalog.open_recordings(node=NODE)
    await catalog.register_node(node())
    await catalog.beat_node(NODE, at=NOW, unstored_bytes=5)
    await catalog.nodes()
    await catalog.forget_node(NODE)
    await catalog.add_segments([segment(one)], stored_bytes=1000, examined=examined())
    await catalog.misdeclared(since=NOW)
    await catalog.segments(one.id)
    await catalog.segments_of([one.id])
    await catalog.object_names([one.id])
    await catalog.put_notes(one.id, {0: b"sealed", 1: b"too"}, audit=audit)
    assert await catalog.notes(one.id) == {0: b"sealed", 1: b"too"}
    await catalog.revise_facts(one.id, sealed_facts=b"later", caller_token=None, called_token="token", audit=audit)
    again = Reindexed(recording=one.id, sealed_facts=b"later", caller_token="c", called_token=None)
    assert await catalog.reindex([again], audit=audit) == 1
    await catalog.count_due(through=PERIOD)
    await catalog.count_due(through=PERIOD, part=Part.METADATA, tenant=ACME)
    await finish(catalog, one, audit=audit)
    placed = hold(one, state=HoldState.PLACING)
    await catalog.add_hold(placed, audit=audit)
    await catalog.revise_hold(placed.id, becomes(replace(placed, state=HoldState.ACTIVE)))
    await catalog.hold(placed.id)
    await catalog.hold(placed.id, tenant=ACME)
    await catalog.holds(tenant=ACME, states=[HoldState.ACTIVE])
    await catalog.holds_on(one.id)
    await catalog.hold_terms(states=[HoldState.ACTIVE])
    await catalog.terms_of([HoldId(new_id("hold"))])
    await catalog.revise_terms(placed.id, becomes(await catalog.counted_hold(placed.id, tenant=ACME)))
    await catalog.counted_holds(tenant=ACME)
    await catalog.members(placed.id)
    await catalog.members(placed.id, before=one.id)
    await catalog.first_members([placed.id], most=2)
    await catalog.earliest_start(placed.id)
    await catalog.keys_of([one.id])
    await catalog.keys_of([one.id], tenant=ACME)
    (unlabelled,) = await catalog.unlabelled_holds()
    await catalog.to_label(placed.id, after=None, limit=2)
    await catalog.protected([one.id], pinned=[placed.id])
    assert await catalog.labelled(unlabelled, through=one.id, before=None, again=[one.id])
    await catalog.to_label_again(after=None, limit=2)
    await catalog.labelled_again([one.id])
    await catalog.count_unlabelled()
    await catalog.add_tenant(tenant("beta", safeguarding_webhook="https://beta.example"))
    concern = hold(one, tenant=TenantId("beta"), state=HoldState.PLACING)
    raised = alert(one, concern)
    await catalog.save_flag(concern, lambda _: raised, acknowledged_before=raised.created_at, audit=audit)
    await catalog.claim_alert(now=NOW, until=NOW, excluding=[ACME])
    await catalog.alert_of(concern.id)
    await catalog.alerts_waiting()
    await catalog.settle_alert(raised.id, next_at=NOW, delivered_at=NOW, audit=audit)
    await catalog.recordings_by_object(ACME, ["a", "b"], limit=2)
    for held in (None, True, False):
        query = RecordingQuery(
            tenant=ACME,
            state=RecordingState.SEALED,
            started_from=NOW - timedelta(days=1),
            started_to=NOW,
            held=held,
            ahead=False,
        )
        assert [row.id for row in await catalog.recordings(query)] == ([] if held is False else [one.id])
        assert not await catalog.recordings(replace(query, before=one.id))
    await catalog.due_recordings(through=PERIOD, after=None, limit=10)
    await catalog.doubtful_recordings(through=PERIOD, now=NOW, after=None, limit=10)
    await catalog.exceptional_recordings(through=PERIOD, now=NOW, tenants=[ACME], after=None, limit=10)
    await catalog.count_undeleted()
    await catalog.count_undeleted(tenant=ACME)
    await catalog.count_due_cohorts(through=PERIOD)
    await catalog.due_recordings(through=PERIOD, after=None, limit=10, tenant=ACME)
    await catalog.due_recordings(through=PERIOD, after=None, limit=10, part=Part.METADATA, tenant=ACME)
    await catalog.recordings(RecordingQuery(tenant=ACME, caller_tokens=("a", "b"), limit=10))
    await catalog.recordings(RecordingQuery(tenant=ACME, started_from=NOW))
    await catalog.count_recordings()
    assert await catalog.miscounted() == []
    await catalog.recount()
    await catalog.count_kept(ACME)
    await catalog.count_live(ACME, through=NOW)
    await catalog.changed_recordings(ACME, through=NOW, started_to=NOW, after=None, limit=10)
    await catalog.oldest_due(now=NOW)
    intent = shred()
    await catalog.create_recording(recording(), elsewhere=["other-month"])
    asked = erasure(one)
    await catalog.add_erasure(asked, audit=audit)
    await catalog.revise_erasure(asked.id, becomes(replace(asked, state=ErasureState.APPROVED)))
    await catalog.erasure(asked.id)
    await catalog.erasure(asked.id, tenant=ACME)
    await catalog.erasures(tenant=ACME, states=[ErasureState.APPROVED], before=ErasureId(new_id("era")))
    erasing = replace(asked, state=ErasureState.APPROVED, recordings={one.id: ErasureOutcome.ERASING})
    await catalog.intend_shred(intent, erasures=[erasing], audit=audit)
    await catalog.erasures_of(intent.id)
    await catalog.erasures_on(one.id)
    await catalog.record_receipt(intent.id, receipt(intent), audit=audit)
    await catalog.due_lots(through=PERIOD, after=None, limit=10)
    await certify(catalog, [certificate(one)], audit=audit)
    await certify(catalog, [certificate(one, parts=(Part.METADATA,))])
    await catalog.unconfirmed_metadata(after=None, limit=10)
    await certify(catalog, [certificate(one, CertificateStatus.FINAL, parts=(Part.METADATA,))])
    await catalog.undeleted_recordings(after=None, limit=10)
    await catalog.list_objects(after=None, limit=10)
    await catalog.make_room([PERIOD])
    await catalog.drop_listed()
    last = certificate(one, CertificateStatus.FINAL)
    [last] = await certify(catalog, [last])
    assert last.place is not None
    await catalog.certificates_of([one.id])
    await catalog.certificates_named([last.id])
    await catalog.certificates(tenant=ACME)
    await catalog.certificate_batches([last.place.batch])
    await catalog.certificate_forms([FORM])
    await catalog.certificate(last.id)
    await catalog.certificate(last.id, tenant=ACME)
    await catalog.certificates(tenant=ACME, recording=one.id, before=CertificateId(new_id("cert")))
    await catalog.unfinished_shreds()
    await catalog.finish_shred(intent.id, at=NOW)
    await catalog.add_override(override(), audit=audit)
    await catalog.overrides()
    await catalog.add_tenant(tenant(), audit=audit)
    await catalog.revise_tenant(ACME, becomes(tenant(contact="new@acme.example"), *audit))
    await catalog.revise_override((await catalog.overrides())[0].id, becomes(override(), *audit))
    asked = policy_request()
    await catalog.add_policy_request(asked, audit=audit)
    await catalog.revise_policy_request(asked.id, becomes(replace(asked, state=PolicyState.APPROVED), *audit))
    await catalog.apply_policy_request(
        asked.id, becomes((replace(asked, state=PolicyState.APPLIED), tenant(metadata_changed=CHANGE)), *audit)
    )
    await catalog.policy_requests(tenant=ACME)
    await catalog.tenant(ACME)
    await catalog.tenants()
    issued = token()
    await catalog.add_token(issued, audit=audit)
    await catalog.token(issued.id)
    await catalog.tokens(tenant=ACME)
    await catalog.revoke_token(issued.id, at=NOW, audit=audit)
    await catalog.append_audit(audit)
    asked = Keyed(
        token=TokenId("tok_" + "0" * 32),
        key="k",
        request="r",
        attempt="a",
        created_at=one.created_at,
        until=one.created_at,
    )
    claimed = await catalog.claim_request(asked, now=one.created_at, forget_before=one.created_at)
    await catalog.renew_request(claimed, until=one.created_at)
    await catalog.leave_request(claimed, at=one.created_at)
    await catalog.settle_request(claimed, status=200, answer=b"sealed")
    await catalog.placers([HoldId("hold_1")])
    await catalog.token_names([TokenId("tok_1")])
    await catalog.ids_beginning("rec_01", tenant=ACME, limit=5)
    await catalog.audit_lines(AuditQuery())
    await catalog.audit_lines(AuditQuery(tenant=ACME))
    await catalog.audit_found(AuditQuery(tenant=ACME, event="access", beyond=1))
    await catalog.last_audited("access.play", one.id)
    await catalog.save_setting("vault_id", "one")
    await catalog.setting("vault_id")
    await catalog.check_schema()
    await catalog.close_generations(1, since=0, audit=audit)


@contextmanager
def calls_of(subject: object) -> Iterator[set[str]]:
    """Collect the names of the methods called on `subject` meanwhile."""
    called: set[str] = set()
    kind = type(subject)
    original = kind.__getattribute__

    def spy(self: object, name: str) -> Any:
        if self is subject:
            called.add(name)
        return original(self, name)

    kind.__getattribute__ = spy  # type: ignore[method-assign]
    try:
        yield called
    finally:
        del kind.__getattribute__
