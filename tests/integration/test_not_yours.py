"""What is another tenant's and what is not at all have one answer and one audit entry."""

from tests.integration.app import PURPOSE, TENANTS, app, sound
from vault.model import Role

__all__ = ["app"]


async def test_a_foreign_id_and_an_unknown_one_are_answered_and_audited_alike(app):
    theirs = await app.upload("call", sound(500), tenant=TENANTS[1])
    hold = (await app.hold(theirs, tenant=TENANTS[1])).json["id"]
    body = {"basis": "art17", "case_reference": "C", "recordings": [theirs], "queue": True}
    erasure = (await app.ask("POST", "/v1/erasures", Role.COMPLIANCE, tenant=TENANTS[1], body=body)).json["id"]
    change = {"metadata_retention": "90d"}
    policy = (await app.ask("POST", "/v1/policies", Role.DPO, tenant=TENANTS[1], body=change)).json["id"]
    for method, path, foreign, who, sent in (
        ("GET", "/v1/recordings/{}", theirs, Role.COMPLIANCE, None),
        ("GET", "/v1/recordings/{}/why", theirs, Role.COMPLIANCE, None),
        ("GET", "/v1/recordings/{}/audio", theirs, Role.COMPLIANCE, None),
        ("GET", "/v1/recordings/{}/notes", theirs, Role.COMPLIANCE, None),
        ("POST", "/v1/recordings/{}/flag", theirs, Role.AGENT, {"category": "distress"}),
        ("POST", "/v1/recordings/{}/pause", theirs, Role.AGENT, None),
        ("GET", "/v1/holds/{}", hold, Role.COMPLIANCE, None),
        ("POST", "/v1/holds/{}/release", hold, Role.COMPLIANCE, {"reason": "r"}),
        ("GET", "/v1/erasures/{}", erasure, Role.COMPLIANCE, None),
        ("GET", "/v1/policies/{}", policy, Role.COMPLIANCE, None),
        ("POST", "/v1/policies/{}/approve", policy, Role.COMPLIANCE, {"approve": False}),
    ):
        unknown = foreign.partition("_")[0] + "_" + "0123456789abcdef" * 2
        seen = []
        for identifier in (foreign, unknown):
            before = len(await app.audit("access.denied"))
            answer = await app.ask(method, path.format(identifier), who, body=sent, headers=PURPOSE)
            document = {name: value for name, value in answer.json.items() if name != "request_id"}
            [entry] = (await app.audit("access.denied"))[before:]
            assert entry["target"] == identifier
            seen.append((answer.status, document, entry["detail"], entry["tenant"]))
        assert seen[0] == seen[1], path
        assert seen[0][0] == 404
