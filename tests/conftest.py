"""Fixtures that several test modules share."""

from tests.integration.seaweed import seaweed
from tests.postgres import postgres

__all__ = ["postgres", "seaweed"]
