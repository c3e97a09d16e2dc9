"""Deletion certificates and the audit trail's hash chain, which third parties can verify."""
