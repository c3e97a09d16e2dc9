"""The catalog's schema and its connections."""

from __future__ import annotations

from typing import Protocol


class SchemaCheck(Protocol):
    """A schema that may not be this code's."""

    async def check_schema(self) -> None:
        """ConfigError if the schema is absent, older or newer than this code's."""


class Schema(SchemaCheck, Protocol):
    """A schema to create, and connections to release."""

    async def migrate(self) -> None:
        """Bring an empty or older schema to the current one (`init` and upgrades; never implicit in `open`)."""

    async def close(self) -> None:
        """Release connections; idempotent."""
