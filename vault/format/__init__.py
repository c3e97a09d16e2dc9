"""Byte layouts and object names; docs/format.md is the normative text."""
