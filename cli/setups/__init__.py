"""Ready-to-paste configuration with which a recorder sends its calls to a vault.

Each recorder has a file NAME.toml here. `{{name}}` in a content is replaced by that value of `Place.values`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final
from xml.sax.saxutils import escape

from cli.setups.place import File, Place, Recorder

_ORDER: Final = (
    *("curl", "ffmpeg", "gstreamer", "tus"),
    *("rtpengine", "rtpengine-s3", "asterisk", "asterisk-audiosocket"),
    *("freeswitch", "freeswitch-audio-fork", "freeswitch-http-cache", "jambonz", "jambonz-s3"),
    *("twilio", "telnyx", "vonage", "genesys", "livekit"),
    *("aws", "boto3", "rclone"),
)
_VALUE: Final = re.compile(r"\{\{(\w+)\}\}")


def _recorder(name: str) -> Recorder:
    said = tomllib.loads(resources.files("cli").joinpath("setups", f"{name}.toml").read_text(encoding="utf-8"))
    templates = said.pop("files")
    return Recorder(name=name, **said, files=lambda place: [_file(each, place) for each in templates])


def _file(template: Mapping[str, Any], place: Place) -> File:
    """Return a file with a place's values in it, escaped where it is XML."""
    values = place.values()
    if template.get("escape") == "xml":
        values = {name: escape(value, {'"': "&quot;"}) for name, value in values.items()}
    return File(path=template["path"], content=_VALUE.sub(lambda found: values[found[1]], template["content"]))


RECORDERS: Final[Mapping[str, Recorder]] = {name: _recorder(name) for name in _ORDER}

__all__ = ["RECORDERS", "Place", "Recorder"]
