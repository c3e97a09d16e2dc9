"""Operations on personal data: search by number, erasure, the end of a contract."""

from __future__ import annotations

from typing import Final

from vault.access.permissions import Act
from vault.server import bodies
from vault.server.operation import Operation
from vault.server.operation import json_answer as _json

PERSONAL: Final = (
    Operation(
        method="post",
        path="/v1/recordings/search",
        name="searchRecordings",
        tag="recordings",
        summary="The same list, with the number in the body instead of the address",
        act=Act.RECORDING_LIST,
        body=bodies.SearchRecordings,
        headers=("Purpose",),
        answers={200: _json("One page; `before` continues it, null at the end.", "RecordingPage")},
        problems=(404, 422),
    ),
    Operation(
        method="post",
        path="/v1/erasures",
        name="requestErasure",
        tag="erasures",
        summary="Ask for an erasure: the first of two people",
        act=Act.ERASURE_REQUEST,
        body=bodies.RequestErasure,
        answers={
            202: _json("What would go and what is held, waiting for the second person.", "Erasure", Location="URL")
        },
        problems=(404, 409, 422),
    ),
    Operation(
        method="get",
        path="/v1/erasures",
        name="listErasures",
        tag="erasures",
        summary="List erasures",
        act=Act.ERASURE_READ,
        query=bodies.Page,
        queries=("tenant", "before", "limit"),
        answers={200: _json("One page, newest first; `before` continues it.", "ErasurePage")},
        problems=(404, 422),
    ),
    Operation(
        method="get",
        path="/v1/erasures/{erasure}",
        name="showErasure",
        tag="erasures",
        summary="Show one erasure, and what keeps what is left of it",
        act=Act.ERASURE_READ,
        answers={200: _json("The erasure.", "Erasure")},
        problems=(404,),
    ),
    Operation(
        method="post",
        path="/v1/erasures/{erasure}/approve",
        name="approveErasure",
        tag="erasures",
        summary="Erase: the second of two people; answers once the keys are gone and certified",
        act=Act.ERASURE_DECIDE,
        body=bodies.ApproveShown,
        answers={200: _json("The erasure; what a hold keeps is still pending or was kept.", "Erasure")},
        problems=(404, 409, 422),
    ),
    Operation(
        method="post",
        path="/v1/erasures/{erasure}/reject",
        name="rejectErasure",
        tag="erasures",
        summary="Reject an erasure: the second of two people, or the first, who withdraws it",
        act=Act.ERASURE_DECIDE,
        answers={200: _json("The erasure; nothing was erased.", "Erasure")},
        problems=(404, 409),
    ),
    Operation(
        method="post",
        path="/v1/tenants/{tenant}/offboard",
        name="requestOffboarding",
        tag="administration",
        summary="Ask to end a tenant's contract: its dpo or an operator, the first of the two",
        act=Act.TENANT_OFFBOARD,
        body=bodies.EndContract,
        answers={202: _json("The tenant, waiting for the second person.", "Tenant")},
        problems=(404, 409, 422),
    ),
    Operation(
        method="post",
        path="/v1/tenants/{tenant}/offboard/approve",
        name="decideOffboarding",
        tag="administration",
        summary="Approve the end of a contract: the other of dpo and operator; either rejects or withdraws it",
        act=Act.TENANT_OFFBOARD,
        body=bodies.Approve,
        answers={200: _json("The tenant; after the export window a sweep drops it.", "Tenant")},
        problems=(404, 409, 422),
    ),
)
