"""Small settings of the vault, such as its id."""

from __future__ import annotations

from typing import Protocol


class SettingRows(Protocol):
    """Settings by name."""

    async def setting(self, name: str) -> str | None:
        """Return a small setting of the vault (its id, its schema's origin)."""

    async def save_setting(self, name: str, value: str) -> None:
        """Insert or replace a small setting."""
