"""Golden transcripts: messages that recorders' documentation shows, one a line, and requests that a recorder sent."""

from pathlib import Path

_HERE = Path(__file__).parent


def transcript(name):
    return tuple((_HERE / f"{name}.jsonl").read_text().splitlines())


def bytes_of(name):
    """Return what came over the wire. rtpengine-VERSION.http: notifications of the daemon of that version."""
    return (_HERE / name).read_bytes()
