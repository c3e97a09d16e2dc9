"""Looks through the head of a WAV that is in memory."""

from __future__ import annotations

from vault.media.wav_sizes import WavHead, find_wav_head, patches


def looked_through(first: bytes, stored_length: int | None = None) -> tuple[WavHead | None, list[tuple[int, int]]]:
    """Return the head of a WAV of which `first` is there, and what of it was asked for."""
    looks: list[tuple[int, int]] = []
    looking = find_wav_head(len(first) if stored_length is None else stored_length)
    try:
        looks.append(next(looking))
        while True:
            start, end = looks[-1]
            looks.append(looking.send(first[start:end]))
    except StopIteration as found:
        return found.value, looks


def patch_wav_sizes(first: bytes, stored_length: int) -> bytes:
    """Return what plays of `first`, the beginning of a stored WAV of `stored_length` bytes."""
    head, _ = looked_through(first, stored_length)
    played = bytearray(first)
    for at, data in () if head is None else patches(head, stored_length):
        played[at : at + len(data)] = data[: max(len(first) - at, 0)]
    return bytes(played)
