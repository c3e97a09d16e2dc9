"""Fixtures that several test modules share."""

from tests.integration.seaweed import seaweed
from tests.openbao import fragile_openbao, openbao
from tests.postgres import postgres, postgres_settings, postgres_template
from tests.softhsm import softhsm

__all__ = [
    "fragile_openbao",
    "openbao",
    "postgres",
    "postgres_settings",
    "postgres_template",
    "seaweed",
    "softhsm",
]
