"""The ID3v2 tag that some software writes in front of an audio file of any format (id3.org, ID3v2.4.0 structure)."""

from __future__ import annotations

from typing import Final

ID3_BYTES: Final = 10
"""How many first bytes state the length of a tag."""
_FOOTER: Final = 0x10


def behind_id3(first: bytes) -> int:
    """Return the offset of the file behind an ID3v2 tag, 0 without one; it may lie beyond `first`."""
    if not first.startswith(b"ID3") or len(first) < ID3_BYTES:
        return 0
    size = first[6] << 21 | first[7] << 14 | first[8] << 7 | first[9]
    return ID3_BYTES + size + (ID3_BYTES if first[5] & _FOOTER else 0)
