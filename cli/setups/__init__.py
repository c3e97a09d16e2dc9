"""Ready-to-paste configuration for recorders: what each of them is told so that its calls arrive in a vault."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cli.setups import buckets, cloud, pbx, uploads
from cli.setups.place import Place, Recorder

RECORDERS: Final[Mapping[str, Recorder]] = {
    each.name: each for each in (*uploads.RECORDERS, *pbx.RECORDERS, *cloud.RECORDERS, *buckets.RECORDERS)
}

__all__ = ["RECORDERS", "Place", "Recorder"]
