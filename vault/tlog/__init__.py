"""Certificates and (later) the transparency log they are entered into."""
