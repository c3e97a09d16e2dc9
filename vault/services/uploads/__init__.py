"""Uploads that are put together from the spool: whole bodies, parts, resumable uploads."""
