"""Protocols of live calls, whose audio is sent during the call."""
