"""A PIN or token that is given directly or kept in a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vault.errors import Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A credential; a file is read again at every use, so that whatever renews it needs no restart of the vault."""

    value: str | None = field(default=None, repr=False)
    file: Path | None = None

    def read(self) -> str:
        """Return it without the line end of a file; Unavailable if the file cannot be read."""
        if self.file is None:
            return self.value or ""
        try:
            return self.file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(
                f"the credential in {self.file} cannot be read; no root version was used",
                hint="make the file readable for the vault's user, and for nobody else",
            ) from error
