"""What a person was shown when they decided: a request cannot change under the hands of the one who approves it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import rfc8785

from vault.errors import ChangedSince, Invalid


def shown_digest(document: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hex, of a request as it is shown: its RFC 8785 form, without the member `shown` itself.

    The document holds whatever the decision rests on - who asked, for what, what it takes - and nothing that changes by
    itself, such as an age.
    """
    return hashlib.sha256(
        rfc8785.dumps({name: value for name, value in document.items() if name != "shown"})
    ).hexdigest()


def check_shown(stated: str | None, document: Mapping[str, Any]) -> None:
    """Raise ChangedSince unless `stated` is the digest of the document as it is now; Invalid if nothing is stated."""
    if stated is None:
        raise Invalid(
            "an approval names what was shown to the one who approves",
            hint="look at the request first, and send the `shown` that it has",
        )
    if stated != shown_digest(document):
        raise ChangedSince(
            "the request is not the one that was shown: it changed since, or another one was looked at",
            hint="look at it again, and decide about what it says now",
        )
