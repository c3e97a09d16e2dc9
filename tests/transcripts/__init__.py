"""Golden transcripts: the messages that recorders' documentation shows, one a line."""

from pathlib import Path


def transcript(name):
    return tuple((Path(__file__).parent / f"{name}.jsonl").read_text().splitlines())
