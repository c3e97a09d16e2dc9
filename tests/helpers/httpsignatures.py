"""Signed requests."""

import base64
import hashlib
import hmac

from tests.helpers.audiohook_client import COMPONENTS, SECRET


def signed(given, *, key=SECRET, values=COMPONENTS):
    """Sign as the grammar reads `given`, independently of the code under test."""
    names = given.partition("(")[2].partition(")")[0].replace('"', "").split()
    lines = [f'"{name}": {values[name]}' for name in names]
    lines.append(f'"@signature-params": {given.partition("=")[2]}')
    digest = hmac.new(key, "\n".join(lines).encode(), hashlib.sha256).digest()
    return f"{given.partition('=')[0]}=:{base64.b64encode(digest).decode()}:"
