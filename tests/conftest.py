"""Fixtures that several test modules share."""

from tests.integration.seaweed import seaweed

__all__ = ["seaweed"]
