"""Uploads that go through the spool: whole bodies, parts, resumable uploads."""
