"""Deletion certificates and the audit trail's chain: documents that strangers verify."""
