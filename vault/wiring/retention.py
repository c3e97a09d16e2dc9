"""The bounds of a vault's retention, and the warnings about it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from vault.config import Config
from vault.model import Finding, Tenant
from vault.ports.keys import Keyring
from vault.retention.periods import Period, RetentionBounds, parse_period, retention_bounds

SHORT: Final = timedelta(days=30)
"""Retention below this gets a warning: most complaints are made later."""
_SUBJECT: Final = "retention"
_HINT: Final = "if that is intended, do nothing; the usual is 90d"


def bounds_of(config: Config, keyring: Keyring) -> RetentionBounds:
    """Return the bounds that the settings give the vault of this keyring; ConfigError if it may not have them."""
    return bounds_in(config, trial=keyring.trial, predates=keyring.predates_trial)


def bounds_in(config: Config, *, trial: bool, predates: bool = False) -> RetentionBounds:
    """Return the bounds that the settings give a vault of this kind; ConfigError if it may not have them."""
    wanted = config.retention
    return retention_bounds(default=wanted.default, floor=wanted.floor, cap=wanted.cap, trial=trial, predates=predates)


def retention_findings(bounds: RetentionBounds, *, trial: bool, tenants: Sequence[Tenant] = ()) -> Sequence[Finding]:
    """Return the warnings that init, serve and doctor give."""
    if trial:
        message = "this is a trial vault: its recordings may end within a day, and its certificates say trial"
        return (Finding(level="warning", subject=_SUBJECT, message=message, hint="keep nothing in it that matters"),)
    findings = []
    if bounds.floor is None:
        message = "no floor binds the retention of this vault, which is older than the floor: it keeps what it kept"
        hint = 'set retention.floor = "1d", once the default and every tenant keep as long'
        findings.append(Finding(level="warning", subject=_SUBJECT, message=message, hint=hint))
    kept: list[tuple[str, Period]] = [("retention.default", bounds.default)]
    kept += [
        (f"the retention of {tenant.id}", parse_period(tenant.retention))
        for tenant in tenants
        if tenant.retention is not None and tenant.ends_at is None
    ]
    findings += [
        Finding(level="warning", subject=_SUBJECT, message=f"{what} is {period}, far below the usual", hint=_HINT)
        for what, period in kept
        if period.longest < SHORT
    ]
    return tuple(findings)
