"""`doctor` and repairs: local looks at a vault that may not be running."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from vault.config import Config
from vault.errors import Unavailable, VaultError
from vault.keystore import recovery
from vault.keystore.keyring import Keyring
from vault.keystore.replicas import Replicas
from vault.model import Finding
from vault.protocol.permissions import has_expired
from vault.services.status import EXPIRES_SOON
from vault.services.vault import Vault
from vault.services.webhooks import Webhooks
from vault.wiring.adapters import SystemClock, keyring_replicas, open_store, root_keys
from vault.wiring.memory import memory_findings
from vault.wiring.opening import open_vault
from vault.wiring.retention import bounds_of, retention_findings

_LATE: Final = timedelta(hours=1)


async def check_vault(config: Config) -> Sequence[Finding]:
    """Look at everything that can be looked at; every failure becomes a finding."""
    findings: list[Finding] = [*memory_findings()]
    clock = SystemClock()
    try:
        findings += await root_keys(config, clock, os.urandom).self_check()
    except VaultError as error:
        findings.append(Finding(level="error", subject="root keys", message=error.message, hint=error.hint))
    try:
        store = await open_store(config)
        findings += await store.check()
        await store.close()
    except VaultError as error:
        findings.append(Finding(level="error", subject="objects", message=error.message, hint=error.hint))
    try:
        async with open_vault(config, background=False) as vault:
            findings += await vault.keyring.check()
            bounds, tenants = bounds_of(config, vault.keyring), await vault.tenants.all()
            findings += retention_findings(bounds, trial=vault.keyring.trial, tenants=tenants)
            findings += await alert_findings(vault, config)
            findings += await token_findings(vault)
    except VaultError as error:
        level = "warning" if isinstance(error, Unavailable) else "error"
        findings.append(Finding(level=level, subject="vault", message=error.message, hint=error.hint))
    return findings


async def alert_findings(vault: Vault, config: Config) -> Sequence[Finding]:
    """Warn of tenants whose flags nobody would hear of, and of alerts that nobody has acknowledged for an hour."""
    tenants = await vault.tenants.all()
    findings = [
        Finding(
            level="warning",
            subject="alerts",
            message=f"{tenant.id} has no safeguarding webhook: a flag keeps a recording and tells nobody",
            hint=f"callvault tenants set {tenant.id} --safeguarding-webhook URL",
        )
        for tenant in tenants
        if tenant.safeguarding_webhook is None and tenant.ends_at is None
    ]
    webhooks = Webhooks(networks=config.alerts.private_networks)
    findings += [
        Finding(
            level="warning",
            subject="alerts",
            message=f"the safeguarding webhook of {tenant.id} leads to a private or link-local address; it still works",
            hint="name its network in alerts.private_networks, or set another webhook: callvault tenants set",
        )
        for tenant in tenants
        if tenant.safeguarding_webhook is not None and await webhooks.leads_inside(tenant.safeguarding_webhook)
    ]
    waiting = await vault.catalog.alerts_waiting()
    if waiting.oldest is not None and vault.clock.now() - waiting.oldest > _LATE:
        message = f"{waiting.count} alerts are not acknowledged, the oldest since {waiting.oldest.isoformat()}"
        hint = "is the safeguarding webhook reachable? the server's log says what it answered"
        findings.append(Finding(level="error", subject="alerts", message=message, hint=hint))
    return findings


async def token_findings(vault: Vault) -> Sequence[Finding]:
    """Warn of tokens that expire soon, or did of late: a recorder that falls silent records nothing."""
    now = vault.clock.now()
    return [
        Finding(
            level="warning",
            subject="tokens",
            message=f"{token.id}, {token.role.value} of {token.tenant or 'the vault'}, "
            f"{'has expired' if has_expired(token, now=now) else 'expires'} at {expires_at.isoformat()}",
            hint="give its holder a successor (callvault tokens issue), then revoke it (callvault tokens revoke)",
        )
        for token in await vault.catalog.tokens(expiring_by=now + EXPIRES_SOON)
        if (expires_at := token.expires_at) is not None and now - expires_at < EXPIRES_SOON
    ]


async def verify_keyring(config: Config) -> Sequence[Finding]:
    """Open every keyring replica by itself and compare the trees; reads only, beside a server or without one."""
    clock = SystemClock()
    keyring = await Keyring.observe(
        keyring_replicas(config), root_keys(config, clock, os.urandom), clock=clock, entropy=os.urandom
    )
    try:
        return await keyring.check()
    finally:
        await keyring.close()


async def repair_replica(config: Config, name: str) -> None:
    """Rebuild one keyring replica, named as in the configuration with its path absolute, from the others."""
    provider = root_keys(config, SystemClock(), os.urandom)
    await recovery.repair_replica(name, replicas=Replicas(keyring_replicas(config)), provider=provider)
