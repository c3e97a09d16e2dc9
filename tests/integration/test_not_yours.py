"""What is another tenant's and what is not at all have one answer and one audit entry, wherever it is named."""

import dataclasses
import re
from urllib.parse import urlencode

import pytest

from tests.helpers.app import BOUND_ROLES, PCMU, PURPOSE, TENANTS, app, sound
from tests.helpers.routes import ABOUT_ONE, ROUTES, SIGNED, things
from tests.helpers.s3clients import Recorder, signed
from tests.helpers.trail import audit_entries
from tests.helpers.uploads import BYTES, PARTIAL, metadata
from vault.access.permissions import permits
from vault.model import Role
from vault.server import routes

__all__ = ["app"]

OURS, THEIRS = TENANTS
SINCE = "2020-01-01T00:00:00Z"
PAGED = {
    ("GET", "/v1/recordings"): [
        {},
        {"state": "sealed"},
        {"expires_from": SINCE},
        {"expires_from": SINCE, "min_bytes": 1},
    ],
    ("POST", "/v1/recordings/search"): [
        {"caller": "020 7946 0123"},
        {"caller": "020 7946 0123", "expires_from": SINCE},
    ],
    ("GET", "/v1/holds/{hold}"): [{}],
    ("GET", "/v1/certificates"): [{}],
    ("GET", "/v1/erasures"): [{}],
    ("GET", "/v1/audit"): [
        {"order": "newest"},
        {"order": "newest", "event": "access"},
        {"event": "access"},
        {"from": SINCE},
    ],
}
"""Every list that a marker continues, and ways to ask it."""
WITHIN = {"call_key", "number"}
"""What tells things apart within the tenant or the recording that the address names beside it."""
NOUNS = {noun for _, path in ROUTES for noun in re.findall(r"{(\w+)}", path)} - WITHIN
OPERATIONS = {(each.method.upper(), each.path): each for each in routes.OPERATIONS}
TUS = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": BYTES, "X-HTTP-Method-Override": "PATCH"}
IETF = {"Upload-Complete": "?0", "Upload-Offset": "0", "Content-Type": PARTIAL, "X-HTTP-Method-Override": "PATCH"}
PART = f"<Part><PartNumber>1</PartNumber><ETag>{'0' * 32}</ETag></Part>"
COMPLETE = f"<CompleteMultipartUpload>{PART}</CompleteMultipartUpload>".encode()


def nouns_in(names):
    return [name for name in names if name.removesuffix("s") in NOUNS]


def unknown(noun, theirs):
    """Return an id of the kind that is nobody's."""
    return "nowhere" if noun == "tenant" else f"{getattr(theirs, noun).partition('_')[0]}_{'0123456789abcdef' * 2}"


async def denied(app, ask):
    """Return the answer to a request and what it left in the trail about denials, as the first of its kind."""
    await app.vault.access.denials.settle()
    head = await app.vault.catalog.audit_head()
    answer = await ask
    entries = [entry.event for entry in await audit_entries(app.vault.catalog, after=head.seq)]
    return answer, [event for event in entries if event.event == "access.denied"]


async def seen(app, ours, route, role, identifier, query=""):
    """Ask once in each dialect of the address; return all that the answers and the audit trail tell, but the id."""
    told = []
    for dialect in (TUS, IETF) if "{upload}" in route[1] else ({},):
        answer, events = await denied(app, ours.ask(app, route, role, OURS, headers=dialect, query=query))
        body = re.sub(rb'"request_id": "\w+"', b"", answer.body)
        headers = {name: value for name, value in answer.headers.items() if name not in ("Request-Id", "Date")}
        assert identifier.encode() not in body
        assert [event.target for event in events] == [identifier] * (answer.status == 404)
        trail = [(event.actor, event.role, event.outcome, event.tenant, event.detail) for event in events]
        told.append((answer.status, headers, body, trail))
    return told


async def test_a_foreign_id_and_an_unknown_one_are_answered_and_audited_alike(app):
    ours, theirs = await things(app, OURS), await things(app, THEIRS)
    made = {"Tus-Resumable": "1.0.0", "Upload-Length": "500", "Upload-Metadata": metadata(filetype=PCMU)}
    begun = await app.ask("POST", f"/v1/ingest/{THEIRS}/tus", Role.RECORDER, tenant=THEIRS, headers=made)
    live = theirs.upload = begun.headers["Location"].rpartition("/")[2]
    for route, act in ROUTES.items():
        role = next((role for role in BOUND_ROLES if act is not None and permits(role, act)), None)
        if role is None:
            continue  # of an operator, and of what needs no token, nothing is another's
        operation = OPERATIONS[route]
        places = nouns_in(re.findall(r"{(\w+)}", route[1]))
        names = [] if operation.body is None else nouns_in(operation.body.model_fields)
        for noun in [*places, *(name.removesuffix("s") for name in names)]:
            foreign = [getattr(theirs, noun), *({"recording": [live], "upload": [theirs.recording]}.get(noun, []))]
            asked = [dataclasses.replace(ours, **{noun: each}) for each in (*foreign, unknown(noun, theirs))]
            sent = {(each.path(route[1]), str(each.body(app, route))) for each in asked}
            assert len(sent) == len(asked), f"{route}: the {noun} that it names is not in what is asked"
            alike = [await seen(app, each, route, role, getattr(each, noun)) for each in asked]
            assert all(each == alike[0] for each in alike), (route, noun, alike)
            assert {answer[0] for answer in alike[0]} == {404}, (route, noun)
        for noun in nouns_in(operation.queries):
            identifiers = (getattr(theirs, noun), unknown(noun, theirs))
            alike = [await seen(app, ours, route, role, each, f"?{noun}={each}") for each in identifiers]
            assert alike[0] == alike[1], (route, noun)
            assert noun != "tenant" or alike[0][0][0] == 404


def test_the_table_of_paged_lists_is_what_the_interface_continues_for_a_tenant():
    continued = {
        route
        for route, each in OPERATIONS.items()
        if {"before", "after"} & {*each.queries, *(() if each.body is None else each.body.model_fields)}
        and any(permits(role, ROUTES[route]) for role in BOUND_ROLES)
    }
    assert continued == PAGED.keys()


async def test_a_foreign_marker_continues_a_list_as_an_unknown_one_does(app):
    ours, theirs = await things(app, OURS), await things(app, THEIRS)
    await app.upload("later", sound(500), headers={"Call-From": "+442079460123"})
    await app.ask("POST", "/v1/erasures", body=ours.erasure_body(ours.recording))
    gone = (await app.ask("GET", "/v1/recordings?state=shredded", tenant=THEIRS)).json["recordings"][0]["id"]
    entry = (await app.ask("GET", f"/v1/audit?tenant={THEIRS}", Role.OPERATOR)).json["entries"][-1]["seq"]
    marks = {"recordings": [theirs.recording, gone], "certificates": [theirs.certificate], "erasures": [theirs.erasure]}
    marks["holds"] = marks["recordings"]
    await app.ask("GET", "/v1/recordings", Role.DPO)

    async def told(route, asked):
        method, path = route[0], route[1].format(hold=ours.hold)
        if method == "POST":
            answer = await app.ask(method, path, Role.DPO, body=asked, headers=PURPOSE)
        else:
            answer = await app.ask(method, f"{path}?{urlencode(asked)}", Role.DPO)
        assert answer.status == 200, (route, asked, answer.body)
        listed = next(each for each in answer.json.values() if isinstance(each, list))
        return [each.get("id", each.get("seq")) for each in listed]

    for route, ways in PAGED.items():
        name = route[1].split("/")[2]
        for asked in ways:
            assert await told(route, asked), (route, asked)
            for foreign in marks.get(name, []):
                beside = foreign[:-1] + ("0" if foreign[-1] != "0" else "1")
                alike = [await told(route, {**asked, "before": each}) for each in (foreign, beside)]
                assert alike[0] == alike[1], (route, asked)
            if name == "audit":
                # A number is a place in the trail, whoever's entry has it, and whether there is one.
                newest = "order" in asked
                own = await told(route, {**asked, "limit": 1000})
                for mark in (entry, 1 << 40):
                    follow = [each for each in own if (each < mark if newest else each > mark)]
                    assert await told(route, {**asked, "limit": 1000, "before" if newest else "after": mark}) == follow


async def test_each_id_of_several_in_a_body_is_looked_at_before_anything_is_told(app):
    ours, theirs = await things(app, OURS), await things(app, THEIRS)
    gone = (await app.ask("GET", "/v1/recordings?state=shredded")).json["recordings"][0]["id"]
    for path, body in (("/v1/holds", app.hold_body()), ("/v1/erasures", ours.erasure_body(""))):
        told = []
        for last in (theirs.recording, unknown("recording", theirs)):
            for first in (ours.recording, gone):
                ask = app.ask("POST", path, body={**body, "recordings": [first, last]})
                answer, [event] = await denied(app, ask)
                told.append((answer.status, answer.json["detail"], event.detail))
                assert event.target == last
        assert told == [told[0]] * 4, path
        assert told[0][0] == 404


@pytest.mark.parametrize("folder", ["/s3", ""])
async def test_s3_tells_a_foreign_bucket_or_upload_from_an_unknown_one_by_nothing(app, folder):
    other = Recorder.of(app.url, app.token(Role.RECORDER, THEIRS))
    path = f"/s3/{THEIRS}/call.wav?uploads"
    begun = await app.ask("POST", path, None, headers=signed(other, "POST", path))
    upload = re.search(rb"<UploadId>(\w+)<", begun.body)[1].decode()
    whole = await app.upload("whole", sound(500), tenant=THEIRS)
    none = "rec_" + "0123456789abcdef" * 2
    ours = Recorder.of(app.url, app.token(Role.RECORDER))

    async def told(method, path):
        body = COMPLETE if method == "POST" else b""
        ask = app.ask(method, path, None, data=body or None, headers=signed(ours, method, path, body=body))
        answer, [event] = await denied(app, ask)
        document = re.sub(rb"<RequestId>\w+<", b"<", answer.body)
        return answer.status, document, event.detail, event.target in path

    for method, route in SIGNED:
        if not route.startswith(folder + "/{bucket}"):
            continue
        key = route.removeprefix(folder + "/{bucket}").replace("{key}", "call.wav")
        buckets = [await told(method, f"{folder}/{bucket}{key}") for bucket in (THEIRS, "nowhere")]
        assert buckets[0] == buckets[1]
        assert (buckets[0][0], buckets[0][3]) == (404, True)
        if not key:
            continue
        for number in ("partNumber=1&",) if method == "PUT" else ("",):
            uploads = [
                await told(method, f"{folder}/{OURS}{key}?{number}uploadId={each}") for each in (upload, whole, none)
            ]
            assert uploads == [uploads[0]] * 3, (method, uploads)
            assert (uploads[0][0], uploads[0][3]) == (404, True)


async def test_what_cannot_be_an_id_is_answered_by_its_form_and_is_in_no_log(app):
    ours = await things(app, OURS)
    for noun in NOUNS - {"tenant"}:
        routes = [route for route in ABOUT_ONE if f"{{{noun}}}" in route[1]]
        for route in routes:
            role = next(role for role in Role if permits(role, ROUTES[route]))
            asked = dataclasses.replace(ours, **{noun: "Bearer-cv_pasted"})
            ask = asked.ask(app, route, role, OURS, headers=TUS if noun == "upload" else {})
            answer, events = await denied(app, ask)
            assert (answer.status, events) == (404, []), route
            assert b"pasted" not in answer.body


async def test_an_operator_hears_the_same_of_what_is_not_there(app):
    for path in ("/v1/tenants/nowhere", f"/v1/sweeps/overrides/ovr_{'0' * 32}", f"/v1/certificates/cert_{'0' * 32}"):
        answer, [event] = await denied(app, app.ask("GET", path, Role.OPERATOR))
        assert (answer.status, answer.json["detail"]) == (404, "there is no such thing, or not for this token")
        assert answer.json["hint"] == "check its id or name, and the tenant of the token"
        assert event.target == path.rpartition("/")[2]
