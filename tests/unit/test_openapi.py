import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic_core import to_json

from tests.helpers import certificates as samples
from vault import server
from vault.access.permissions import Act, permits
from vault.ids import CertificateId, HoldId, TokenId
from vault.model import (
    Assurance,
    CallFacts,
    CertificateStatus,
    Hold,
    HoldKind,
    HoldState,
    Role,
    ShredReceipt,
    StoredCertificate,
    Tenant,
    Token,
)
from vault.ports.erasures import Erasure, ErasureBasis, ErasureId, ErasureOutcome, ErasureState
from vault.ports.holds import Member
from vault.ports.policies import PolicyPreview, PolicyRequest, PolicyState
from vault.ports.recordings import Kept
from vault.ports.shreds import SweepOverride
from vault.server.context import with_names
from vault.server.operation import build
from vault.server.routes import OPERATIONS, openapi
from vault.services.recordings.search import FRAMES_LEFT_OUT, LEFT_OUT, STATED_START

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOLD = Hold(
    id=HoldId("hold_" + "0" * 32),
    tenant=samples.TENANT,
    kind=HoldKind.LEGAL,
    matter="M-1",
    reason="claim",
    authority="counsel",
    owner="legal team",
    state=HoldState.ACTIVE,
    created_at=NOW,
    review_at=NOW + timedelta(days=30),
    recordings=(samples.recording().id,),
)
TOKEN_ID = TokenId("tok_" + "0" * 32)


@pytest.fixture(scope="module")
def described():
    return build(OPERATIONS)


@pytest.fixture(scope="module")
def routed():
    from vault.config import Config  # noqa: PLC0415  # the server is imported by the tests that need it
    from vault.server.app import build_app  # noqa: PLC0415

    app = build_app(object(), Config())
    routes = {(route.method.lower(), route.resource.canonical) for route in app.router.routes()}
    # aiohttp answers HEAD wherever it answers GET, as RFC 9110 asks; the document leaves that to the RFC.
    return {(method, path) for method, path in routes if method != "head" or ("get", path) not in routes}


def operations(described):
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_every_route_is_in_the_document_and_every_documented_operation_is_routed(described, routed):
    assert {(method, path) for method, path, _ in operations(described)} == routed


def test_every_reference_points_at_a_schema_of_the_document(described):
    named = re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(described))
    assert set(named) <= described["components"]["schemas"].keys()
    assert '"$ref": "#/$defs' not in json.dumps(described)


def test_every_schema_of_the_document_is_used(described):
    named = set(re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(described)))
    assert described["components"]["schemas"].keys() == named


def test_operation_ids_are_unique(described):
    ids = [operation["operationId"] for _, _, operation in operations(described)]
    assert len(ids) == len(set(ids))


def test_every_path_placeholder_is_a_declared_required_parameter(described):
    for _, path, operation in operations(described):
        declared = {each["name"] for each in operation["parameters"] if each["in"] == "path" and each["required"]}
        assert declared == set(re.findall(r"{(\w+)}", path))


def test_roles_are_those_the_permissions_table_gives(described):
    shown = described["paths"]["/v1/recordings/{recording}/audio"]["get"]["x-callvault-roles"]
    assert shown == [role.value for role in Role if permits(role, Act.PLAY)]
    assert "operator" not in shown


def test_only_public_operations_need_no_token(described):
    public = {path for _, path, operation in operations(described) if operation["security"] == []}
    assert public == {"/v1/issuer-key", "/v1/openapi.json", "/healthz", "/readyz", "/metrics"}


def test_every_operation_documents_its_failures_as_problems(described):
    for _, _, operation in operations(described):
        assert "application/problem+json" in operation["responses"]["default"]["content"]
        if operation["security"]:
            assert {"401", "403"} <= operation["responses"].keys()


def test_a_period_is_described_as_it_is_parsed(described):
    from vault.retention.periods import parse_period  # noqa: PLC0415

    retention = described["components"]["schemas"]["AddTenant"]["properties"]["retention"]["anyOf"][0]
    for example in retention["examples"]:
        assert re.search(retention["pattern"], example)
        parse_period(example)
    assert not any(re.search(retention["pattern"], text) for text in ("P90D", "90", ""))


def test_every_query_parameter_with_an_effect_is_known_to_its_model():
    for operation in OPERATIONS:
        if operation.query is not None:
            known = operation.query.model_json_schema()["properties"]
            assert operation.queries
            assert set(operation.queries) <= known.keys()


def test_only_public_operations_and_dialects_see_to_their_sender_themselves():
    raw = {each.path for each in OPERATIONS if each.raw and each.act is not None and not each.signed}
    assert raw == {f"/v1/ingest/{{tenant}}/{dialect}" for dialect in ("ws", "audiohook", "rtpengine")}


def test_of_the_catalog_the_server_reads_rows_that_are_shown_as_they_are():
    said = "".join(path.read_text() for path in Path(server.__file__).parent.rglob("*.py"))
    rows = {"recording", "counted_hold", "counted_holds", "members", "first_members", "placers", "erasure", "erasures"}
    rows |= {"certificate", "certificates", "tokens", "token_names", "ids_beginning"}
    assert set(re.findall(r"\bcatalog\.(\w+)", said)) == rows


KINDS = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None), "array": list}


def fits(described, schema, value):
    """Tell whether JSON is what a schema promises, in the words that the document uses."""
    if "$ref" in schema:
        return fits(described, described["components"]["schemas"][schema["$ref"].rpartition("/")[2]], value)
    if "anyOf" in schema:
        return any(fits(described, each, value) for each in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    if schema["type"] != "object":
        return (
            isinstance(value, KINDS[schema["type"]])
            and re.search(schema.get("pattern", ""), str(value)) is not None
            and ("minimum" not in schema or value >= schema["minimum"])
            and (schema.get("format") != "date-time" or INSTANT.fullmatch(value) is not None)
            and all(fits(described, schema["items"], each) for each in (value if schema["type"] == "array" else ()))
        )
    if not isinstance(value, dict):
        return False
    properties = schema.get("properties", {})
    assert schema.get("additionalProperties", True) is not False or value.keys() <= properties.keys()
    assert set(schema.get("required", ())) <= value.keys()
    assert all(fits(described, properties[name], each) for name, each in value.items() if name in properties), value
    return True


def matches(described, name, reply):
    shown = with_names(json.loads(to_json(reply)), {})
    promised = described["components"]["schemas"][name]["properties"]
    assert [each for each in reply if each in promised] == [each for each in promised if each in reply], "in its order"
    assert fits(described, described["components"]["schemas"][name], shown)
    return shown


def test_what_the_views_render_is_what_the_document_promises(described):
    from vault.server.api.certificates import render_certificate  # noqa: PLC0415
    from vault.server.api.erasures import ErasurePage, render_erasure, render_summary  # noqa: PLC0415
    from vault.server.api.holds import render_hold  # noqa: PLC0415
    from vault.server.api.recordings import render_recording  # noqa: PLC0415
    from vault.server.api.tenants import render_tenant  # noqa: PLC0415
    from vault.server.api.tokens import render_token  # noqa: PLC0415
    from vault.services.deletion.erasures import ErasureView  # noqa: PLC0415
    from vault.services.playback.playback import RecordingView  # noqa: PLC0415
    from vault.services.tenants.tenants import TenantView  # noqa: PLC0415

    row = samples.recording()
    bare = RecordingView(recording=row, length=8, live=False, facts=None, holds=())
    matches(described, "Recording", render_recording(bare))
    sent = {"caller_sent": "01632 960001", "called_sent": "sip:01632960100@pbx.example", LEFT_OUT: "to (text)"} | {
        FRAMES_LEFT_OUT: "1 (form)"
    }
    facts = CallFacts(caller="+441632960001", tags=("vip",), extra={STATED_START: "2100-01-01T00:00:00+00:00", **sent})
    full = matches(described, "Recording", render_recording(replace(bare, facts=facts, holds=(HOLD,))))
    call = described["components"]["schemas"]["Recording"]["properties"]["call"]
    assert full["call"].keys() == call["properties"].keys()
    matches(described, "Hold", render_hold(HOLD, [Member(recording=row.id, too_late=False)], more=True))
    erasure = Erasure(
        id=ErasureId("era_" + "0" * 32),
        tenant=row.tenant,
        basis=ErasureBasis.ART17,
        case_reference="DSR-1",
        queue=True,
        state=ErasureState.APPROVED,
        requested_by=TOKEN_ID,
        requested_at=NOW,
        recordings={row.id: ErasureOutcome.PENDING},
    )
    matches(described, "Erasure", render_erasure(ErasureView(erasure=erasure, held={row.id: [HOLD]})))
    matches(described, "ErasurePage", ErasurePage(erasures=[render_summary(erasure)], before=None))
    tenant = Tenant(
        id=samples.TENANT, name="Oakfield", controller="Oakfield", contact="dpo@example.org", created_at=NOW
    )
    matches(described, "Tenant", render_tenant(TenantView(tenant=tenant)))
    leaving = TenantView(tenant=tenant, kept=Kept(live=3, held=1), goes_from=NOW, shown="0" * 64)
    matches(described, "Tenant", render_tenant(leaving))
    token = Token(
        id=TOKEN_ID, name="pbx", role=Role.RECORDER, tenant=samples.TENANT, secret_sha256="00" * 32, created_at=NOW
    )
    matches(described, "Token", render_token(token))
    certificate = StoredCertificate(
        id=CertificateId("cert_" + "0" * 32),
        recording=row.id,
        tenant=row.tenant,
        status=CertificateStatus.FINAL,
        supersedes=None,
        issued_at=NOW,
    )
    matches(described, "Certificate", render_certificate(certificate, "e30.e30.e30"))


def test_what_the_sweep_views_render_is_what_the_document_promises(described):
    from vault.retention.guards import Guard, Tripped  # noqa: PLC0415
    from vault.server.api.policies import render_policy  # noqa: PLC0415
    from vault.server.api.sweeps import render_override, render_sweep  # noqa: PLC0415
    from vault.services.deletion.sweep import SweepLine, SweepReport  # noqa: PLC0415

    receipt = ShredReceipt(
        intent_id="shr_" + "0" * 32,
        epoch_destroyed=1,
        epoch_live=2,
        root_version_destroyed="v1",
        provider="file",
        assurance=Assurance.BEST_EFFORT,
        replicas=2,
        unrecoverable_at=NOW,
        caches_clear_at=NOW,
    )
    tripped = Tripped(guard=Guard.MASS_SHRED, reason="too much", tenant=samples.recording().tenant, early=7, live=9)
    line = SweepLine(
        recording=samples.recording().id, tenant=samples.recording().tenant, action="keep", reason="a hold protects it"
    )
    for report in (
        SweepReport(at=NOW, dry_run=False, due_through=1, shredded=1, receipt=receipt, postponed=[tripped]),
        SweepReport(at=NOW, dry_run=True, due_through=1, kept=1, lines=(line,)),
    ):
        shown = matches(described, "Sweep", render_sweep(report))
        assert ("recordings" in shown, "receipt" in shown) == (report.dry_run, not report.dry_run)
    override = SweepOverride(
        id="ovr_" + "0" * 32, through=NOW, reason="clock is right", requested_by=TOKEN_ID, requested_at=NOW
    )
    matches(described, "Override", render_override(override))
    request = PolicyRequest(
        id="pol_" + "0" * 32,
        tenant=samples.recording().tenant,
        through=24_320,
        metadata_retention=None,
        state=PolicyState.REQUESTED,
        preview=PolicyPreview(changed=3, earlier=2, later=1, held=1),
        requested_by=TOKEN_ID,
        requested_role=Role.DPO,
        requested_at=NOW,
    )
    matches(described, "PolicyRequest", render_policy(request))


async def test_the_answer_is_the_document_as_json(described):
    answer = await openapi(None)
    assert answer.content_type == "application/json"
    assert json.loads(answer.body) == described
    assert (await openapi(None)).body is answer.body
