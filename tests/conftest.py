"""Fixtures that several test modules share."""

from tests.integration.seaweed import seaweed
from tests.postgres import postgres, postgres_settings, postgres_template

__all__ = ["postgres", "postgres_settings", "postgres_template", "seaweed"]
