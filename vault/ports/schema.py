"""The catalog's schema and its connections."""

from __future__ import annotations

from typing import Protocol


class SchemaCheck(Protocol):
    """Checks the version of the catalog's schema."""

    async def check_schema(self) -> None:
        """Raise ConfigError if the schema is absent, or older or newer than this program's."""


class Schema(SchemaCheck, Protocol):
    """Creates and migrates the schema, and closes connections."""

    async def migrate(self) -> None:
        """Migrate an empty or older schema to the current one. Opening a catalog does not do this by itself."""

    async def close(self) -> None:
        """Close connections; closing again is allowed."""
