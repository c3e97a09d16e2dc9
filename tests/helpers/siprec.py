"""Metadata of SIPREC."""

from pathlib import Path

HERE = Path(__file__).parents[1] / "unit" / "siprec"


def document(name):
    return (HERE / f"{name}.xml").read_bytes()
