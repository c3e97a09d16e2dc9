"""What is known of a tenant: read again after five seconds, and asked for once in five while the catalog is away."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from vault.errors import Unavailable
from vault.ids import TenantId
from vault.model import Tenant
from vault.services.tenants.tenants import Tenants

ACME = TenantId("acme")


class Rows:
    """A catalog of one tenant that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = False
        self.keep_dtmf = False

    async def tenant(self, identifier: TenantId) -> Tenant:
        self.asked += 1
        if self.away:
            raise Unavailable("the catalog did not answer")
        born = datetime(2026, 1, 1, tzinfo=UTC)
        return Tenant(id=identifier, name="A", controller="A", contact="a", created_at=born, keep_dtmf=self.keep_dtmf)


async def test_a_tenant_is_read_again_after_five_seconds_and_an_outage_is_waited_for_once_in_five() -> None:
    rows, clock = Rows(), SimpleNamespace(seconds=100.0)
    clock.monotonic = lambda: clock.seconds
    collaborators = dict.fromkeys(("coordinates", "webhooks", "bounds", "periods_ahead", "export_window"))
    tenants = Tenants(catalog=rows, clock=clock, **collaborators)
    assert [await tenants.keeps_dtmf(ACME) for _ in range(3)] == [False] * 3
    rows.keep_dtmf = True
    clock.seconds += 4.9
    assert (await tenants.keeps_dtmf(ACME), rows.asked) == (False, 1)
    clock.seconds += 0.2
    assert (await tenants.keeps_dtmf(ACME), rows.asked) == (True, 2)
    rows.away = True
    clock.seconds += 5.0
    assert [await tenants.keeps_dtmf(ACME) for _ in range(3)] == [True] * 3
    assert rows.asked == 3
    with pytest.raises(Unavailable):
        await tenants.keeps_dtmf(TenantId("another"))
