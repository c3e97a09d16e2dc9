"""The protocols of recorders, without I/O: parsers and state machines."""
