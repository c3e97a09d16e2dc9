"""Every byte layout and object name; docs/format.md is the normative text."""
