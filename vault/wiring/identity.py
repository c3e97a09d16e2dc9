"""Who runs the vault, as its certificates say it, and what is to be said of a vault that does not know."""

from __future__ import annotations

from collections.abc import Sequence

from vault.config import IdentitySettings
from vault.model import Finding


def identity_findings(identity: IdentitySettings, *, trial: bool) -> Sequence[Finding]:
    """Return what init, serve and doctor say of a placeholder; a trial vault's certificates are no proof anyway."""
    if trial or not identity.unnamed:
        return ()
    names = " and ".join(f"identity.{name}" for name in identity.unnamed)
    verb = "are placeholders" if len(identity.unnamed) > 1 else "is a placeholder"
    message = f"{names} {verb}: no certificate can say who runs this vault, so nothing is shredded until they do"
    hint = "set processor and contact in [identity] of config.toml, and restart"
    return (Finding(level="error", subject="identity", message=message, hint=hint),)
