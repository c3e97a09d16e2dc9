"""Small settings of the vault, such as its id."""

from __future__ import annotations

from typing import Protocol


class SettingRows(Protocol):
    """Reads and writes settings by name."""

    async def setting(self, name: str) -> str | None:
        """Return a setting of the vault, such as its id; None if it is not set."""

    async def save_setting(self, name: str, value: str) -> None:
        """Insert or replace a setting."""
